"""One pass over the images, from which every descriptor is scored.

Shapes: N samples of the split, M modalities, D width of a descriptor, S kept patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.sample import Batch
from data.splits import EvalSplit
from engine.metrics import RankingResult, evaluate_ranking, rank_distances
from engine.missing import NOTHING, absent_modalities, title
from engine.observers import Observer
from engine.precision import Precision
from engine.reranking import rerank
from modeling.model import EncodedTokens, ReIDModel, ReIDOutput
from modeling.selection import TokenInfo
from utils import distributed
from utils.errors import UserError
from utils.progress import progress_bar

NO_ROOM = 1e-4
"""Shares in percent that differ by less than this differ by rounding."""


@dataclass(frozen=True)
class Encoded:
    """What the model made of a split; row i is sample i."""

    descriptors: dict[str, Tensor]
    """(N, D) float32 by descriptor, on the device."""
    kept: Tensor | None
    """(N, M, S) int64, the patches that the first selection kept, on the device; None without a selection."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores a model on one split.

    Args:
        split: query and gallery.
        loader: batches of its samples; each of several processes has different ones, and all get the same metrics.
        transform: (images uint8, present) to the normalised float batch.
        normalize_features: scale the descriptors to unit length before computing distances.
        rerank: rank by k-reciprocal re-ranked distances.
        flip: take the mean of the descriptors of an image and of its mirror image.
        missing: the setting of absent modalities that is scored (engine.missing).
        coverage: (N, patches) share of each patch that is on the object; None if the data set does not know it.
        observers: return extra selection statistics at every evaluation.
    """

    split: EvalSplit
    loader: Iterable[Batch]
    transform: Callable[[Tensor, Tensor], Tensor]
    precision: Precision
    normalize_features: bool
    rerank: bool
    flip: bool
    missing: str
    coverage: Tensor | None
    observers: Sequence[Observer] = ()

    def __call__(self, model: ReIDModel) -> dict[str, Any]:
        """Return the record of an evaluation: 'score' and, by descriptor, mAP, R1, R5, R10, mINP in percent."""
        encoded = self.encode(model, [self.missing])[self.missing]
        record = self._record(model, encoded, self.missing)
        if encoded.kept is not None:
            present = self.present(self.missing).to(encoded.kept.device)
            for observer in self.observers:
                if metrics := observer.after_evaluation(encoded.kept, present):
                    record["selection"] = record.get("selection", {}) | metrics
        return record

    def score(self, model: ReIDModel, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return a record for each of several settings of absent modalities, from one pass over the images."""
        encoded = self.encode(model, settings)
        return {setting: self._record(model, encoded[setting], setting) for setting in encoded}

    def _record(self, model: ReIDModel, encoded: Encoded, setting: str) -> dict[str, Any]:
        results = {name: self.rank(features) for name, features in encoded.descriptors.items()}
        record: dict[str, Any] = {
            "split": self.split.name,
            "eval": {name: as_percent(result) for name, result in results.items()},
        }
        record["score"] = record["eval"][model.descriptor]["mAP"]
        if encoded.kept is not None and self.coverage is not None:
            coverage, present = (known.to(encoded.kept.device) for known in (self.coverage, self.present(setting)))
            record["selection"] = object_share(encoded.kept, coverage, present)
        return record

    @torch.inference_mode()
    def encode(self, model: ReIDModel, settings: Sequence[str] = (NOTHING,)) -> dict[str, Encoded]:
        """Encode each sample of the split once, in one of the processes.

        Returns:
            What the model made of the samples, by setting of absent modalities.

        Raises:
            UserError: a setting leaves a sample without any modality.
        """
        self._check_settings(settings)
        was_training = model.training
        model.eval()
        rows: dict[str, list[tuple[dict[str, Tensor], Tensor | None]]] = {setting: [] for setting in settings}
        indices: list[Tensor] = []
        blank, total = None, len(self.split.samples)
        with progress_bar(total=total, desc=f"encode {self.split.name}", unit="samples") as bar:
            for batch in self.loader:
                batch = batch.to(self.precision.device)
                images = self.transform(batch.images, batch.present)
                with self.precision.autocast():
                    if blank is None and not model.drop_absent and any(setting != NOTHING for setting in settings):
                        blank = model.encode_blank(images)
                    views = [(images, batch.masks)]
                    if self.flip:
                        views.append(tuple(None if view is None else view.flip(-1) for view in views[0]))
                    encoded = [
                        (model.encode(version, batch.camera), model.describe(batch.index, mask))
                        for version, mask in views
                    ]
                    for setting in settings:
                        rows[setting].append(_descriptors(_decode(model, encoded, batch, setting, blank)))
                indices.append(batch.index)
                bar.update(distributed.world_size() * len(batch))
        model.train(was_training)
        index = torch.cat(indices)

        def gather(parts: Iterable[Tensor]) -> Tensor:
            return distributed.gather_samples(torch.cat(list(parts)), index, total)

        return {
            setting: Encoded(
                {name: gather(descriptors[name] for descriptors, _ in parts) for name in parts[0][0]},
                None if parts[0][1] is None else gather(kept for _, kept in parts),
            )
            for setting, parts in rows.items()
        }

    def _check_settings(self, settings: Sequence[str]) -> None:
        for setting in settings:
            if lost := self.num_lost(setting):
                raise UserError(
                    f"With {title(setting)} absent, {lost} of {len(self.split.samples)} samples have no modality left. "
                    "Leave that setting out."
                )

    def num_lost(self, setting: str) -> int:
        """Count how many samples `setting` leaves without any modality."""
        return int((~self.present(setting).any(dim=1)).sum())

    def present(self, setting: str) -> Tensor:
        """Return which modalities of the split's samples `setting` leaves: (N, M) bool."""
        present = torch.tensor([[path is not None for path in sample.paths] for sample in self.split.samples])
        return present & ~torch.tensor(absent_modalities(setting))

    def rank(self, features: Tensor) -> RankingResult:
        """Rank the gallery for every query by `features` (N, D) of the split's samples."""
        if self.normalize_features:
            features = F.normalize(features, dim=1)
        device = features.device
        query, gallery = (torch.from_numpy(index).to(device) for index in (self.split.query, self.split.gallery))
        pids, groups = (torch.from_numpy(values).to(device) for values in (self.split.pids, self.split.groups))
        labels = pids[query], groups[query], pids[gallery], groups[gallery]
        if self.rerank:
            return rank_distances(rerank(features[query], features[gallery]), *labels)
        return evaluate_ranking(features[query], *labels[:2], features[gallery], *labels[2:])


def _decode(
    model: ReIDModel,
    views: Sequence[tuple[EncodedTokens, TokenInfo]],
    batch: Batch,
    setting: str,
    blank: EncodedTokens | None,
) -> list[ReIDOutput]:
    """Return the outputs for each augmented version of a batch when `setting` removes modalities."""
    absent = torch.tensor(absent_modalities(setting), device=batch.present.device)
    if setting != NOTHING and blank is not None:
        views = [(model.without(encoded, absent, batch.camera, blank), info) for encoded, info in views]
    return [model.decode(encoded, batch.present & ~absent, info) for encoded, info in views]


def _descriptors(outputs: Sequence[ReIDOutput]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the mean descriptors of the augmented versions, and the patches (B, M, S) kept of the first version."""
    means = {
        name: torch.stack([output.descriptors[name].float() for output in outputs]).mean(dim=0)
        for name in outputs[0].descriptors
    }
    selection = outputs[0].selection
    return means, None if selection is None else torch.stack(selection.indices, dim=1)


def as_percent(result: RankingResult) -> dict[str, float]:
    """Return the metrics that tables show, in percent, and how many queries were scored and how many were not."""
    metrics = {"mAP": result.mAP, **{f"R{rank}": result.cmc[rank] for rank in (1, 5, 10)}, "mINP": result.mINP}
    return {name: 100 * float(value) for name, value in metrics.items()} | {
        "queries": result.num_valid_queries,
        "queries_without_match": result.num_queries - result.num_valid_queries,
    }


def object_share(kept: Tensor, coverage: Tensor, present: Tensor | None = None) -> dict[str, float]:
    """Say how well the kept patches lie on the object.

    Args:
        kept: (N, M, S) int64, patches kept per image and modality.
        coverage: (N, P) share of each patch on the object.
        present: (N, M) bool, the modalities that are present, whose patches alone count; None: all.

    Returns:
        The share of patch area that is on the object, in percent, of the kept patches (kept_on_object), of all patches
        (all_on_object), and of the S patches of each image that lie most on it (oracle_on_object); and where the kept
        lie between the others, (kept - all) / (oracle - all) (relative_on_object). The expectation of S random patches
        is the share of all, so that it is 0 for chance, 1 for the best choice, and negative below chance. It is left
        out where every choice of S patches is as good.
    """
    num_kept = kept.shape[2]
    shares = {
        "kept": coverage.gather(1, kept.flatten(1)).view(kept.shape).mean(dim=2),
        "all": coverage.mean(dim=1, keepdim=True),
        "oracle": coverage.topk(num_kept, dim=1).values.mean(dim=1, keepdim=True),
    }
    shares = {name: share.expand(kept.shape[:2]) for name, share in shares.items()}
    if present is not None:
        shares = {name: share[present] for name, share in shares.items()}
    means = {name: 100 * share.mean().item() for name, share in shares.items()}
    metrics = {f"{name}_on_object": mean for name, mean in means.items()}
    room = means["oracle"] - means["all"]
    if num_kept < coverage.shape[1] and room > NO_ROOM:
        metrics["relative_on_object"] = (means["kept"] - means["all"]) / room
    return metrics
