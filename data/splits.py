"""Define what a run trains on and what it is scored on: lists of samples, labels and the protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.sample import Sample
from utils.errors import UserError

VALIDATION_SEED = 0  # The held-out identities do not depend on the seed of the run, so that runs can be compared.


@dataclass(frozen=True)
class EvalSplit:
    """Query and gallery index one list of distinct samples, so that an image that is in both is encoded once."""

    name: str
    samples: tuple[Sample, ...]
    query: np.ndarray
    """(Q,) positions in `samples`."""
    gallery: np.ndarray
    """(G,) positions in `samples`."""
    protocol: str
    """'camera' or 'scene': a query ignores the gallery images of its own identity from the same camera or scene."""

    @property
    def pids(self) -> np.ndarray:
        """Return the identities (N,)."""
        return np.array([sample.pid for sample in self.samples])

    @property
    def groups(self) -> np.ndarray:
        """Return the cameras or scenes (N,), depending on the protocol."""
        return np.array([getattr(sample, self.protocol) for sample in self.samples])

    def check_matches(self) -> None:
        """Make sure, before the first step, that there is something to score.

        Raises:
            UserError: no query's identity is in the gallery with another camera or scene.
        """
        pids, groups = self.pids, self.groups
        gallery: dict[int, set[int]] = defaultdict(set)
        for pid, group in zip(pids[self.gallery].tolist(), groups[self.gallery].tolist(), strict=True):
            gallery[pid].add(group)
        query = zip(pids[self.query].tolist(), groups[self.query].tolist(), strict=True)
        if not any(gallery[pid] - {group} for pid, group in query):
            raise UserError(
                f"No query of the {self.name} set has a match in the gallery of another {self.protocol}, so nothing "
                f"can be scored: {len(self.query)} queries, {len(self.gallery)} gallery images, "
                f"{len(set(groups.tolist()))} {self.protocol}(s). An identity must be seen by two or more."
            )


@dataclass(frozen=True)
class ReIDData:
    """A run uses these splits of a data set."""

    train: tuple[Sample, ...]
    test: EvalSplit
    validation: EvalSplit | None

    @property
    def train_pids(self) -> list[int]:
        """Return the sorted identities of the training set; a sample's label is the position of its identity."""
        return sorted({sample.pid for sample in self.train})

    @property
    def labels(self) -> np.ndarray:
        """Return the training labels (N,), 0..K-1."""
        position = {pid: label for label, pid in enumerate(self.train_pids)}
        return np.array([position[sample.pid] for sample in self.train])

    @property
    def num_cameras(self) -> int:
        """Return the number of cameras of the training set."""
        return max(sample.camera for sample in self.train) + 1


def make_eval_split(name: str, query: Sequence[Sample], gallery: Sequence[Sample], protocol: str) -> EvalSplit:
    """Express query and gallery as positions in their union."""
    position = {sample: i for i, sample in enumerate(dict.fromkeys([*query, *gallery]))}
    return EvalSplit(
        name,
        tuple(position),
        np.array([position[sample] for sample in query]),
        np.array([position[sample] for sample in gallery]),
        protocol,
    )


def hold_out(train: Sequence[Sample], num_ids: int, protocol: str) -> tuple[list[Sample], EvalSplit]:
    """Move `num_ids` identities, each with two or more groups (cameras or scenes), from `train` to a validation split.

    Returns:
        What is left to train on, and the validation split.

    Raises:
        UserError: there are fewer such identities, or none would be left to train on.
    """
    groups: dict[int, set[int]] = defaultdict(set)
    for sample in train:
        groups[sample.pid].add(getattr(sample, protocol))
    eligible = sorted(pid for pid, seen in groups.items() if len(seen) > 1)
    if num_ids > len(eligible) or num_ids >= len(groups):
        raise UserError(
            f"DATASETS.VAL_IDS is {num_ids}, but of the {len(groups)} training identities {len(eligible)} are seen by "
            f"more than one {protocol} and can be validated on, and at least one must be left to train. Lower it, or "
            "set it to 0."
        )
    held = set(np.random.default_rng(VALIDATION_SEED).choice(eligible, num_ids, replace=False).tolist())
    validation = [sample for sample in train if sample.pid in held]
    return [s for s in train if s.pid not in held], make_eval_split("validation", validation, validation, protocol)
