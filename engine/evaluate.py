"""One pass over the images, every feature descriptor scored from it."""

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
from engine.precision import Precision
from engine.reranking import rerank
from modeling.model import ReIDModel, ReIDOutput
from utils import distributed
from utils.errors import UserError
from utils.progress import progress_bar


@dataclass(frozen=True)
class Encoded:
    """What a split's images became; row i is sample i."""

    descriptors: dict[str, Tensor]
    """(N, D) float32 by descriptor, on the device."""
    kept: Tensor | None
    """(N, M, S) int64, the patches that SDTPS kept, on the device."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores a model on one split.

    Args:
        split: query and gallery.
        loader: batches of its samples; of several processes each has its own, and all of them get the same figures.
        transform: (images uint8, present) to the normalised float batch.
        headline: the descriptor whose mAP decides on 'best'.
        normalize_features: scale to unit length before the distance.
        rerank: rank by k-reciprocal re-ranked distances.
        flip: take the mean of the features of an image and of its mirror image.
        missing: the setting of absent modalities that is scored (engine.missing).
        coverage: (N, patches) share of each patch that is on the object, where the data set knows it.
        observe: kept patches (N, M, S) and present (N, M) to further figures of the selection, at every evaluation.
    """

    split: EvalSplit
    loader: Iterable[Batch]
    transform: Callable[[Tensor, Tensor], Tensor]
    precision: Precision
    headline: str
    normalize_features: bool = True
    rerank: bool = False
    flip: bool = False
    missing: str = NOTHING
    coverage: Tensor | None = None
    observe: Callable[[Tensor, Tensor], dict[str, float]] | None = None

    def __call__(self, model: ReIDModel) -> dict[str, Any]:
        """The record of an evaluation: 'score' and, by descriptor, mAP, R1, R5, R10, mINP in percent."""
        encoded = self.encode(model, [self.missing])[self.missing]
        record = self._record(encoded)
        if self.observe is not None and encoded.kept is not None:
            figures = self.observe(encoded.kept, self.present(self.missing).to(encoded.kept.device))
            if figures:
                record["selection"] = record.get("selection", {}) | figures
        return record

    def score(self, model: ReIDModel, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
        """A record for each of several settings of absent modalities, from one pass over the images."""
        return {setting: self._record(encoded) for setting, encoded in self.encode(model, settings).items()}

    def _record(self, encoded: Encoded) -> dict[str, Any]:
        results = {name: self.rank(features) for name, features in encoded.descriptors.items()}
        record: dict[str, Any] = {
            "split": self.split.name,
            "eval": {name: as_percent(result) for name, result in results.items()},
        }
        record["score"] = record["eval"][self.headline]["mAP"]
        if encoded.kept is not None and self.coverage is not None:
            record["selection"] = object_share(encoded.kept, self.coverage.to(encoded.kept.device))
        return record

    @torch.inference_mode()
    def encode(self, model: ReIDModel, settings: Sequence[str] = (NOTHING,)) -> dict[str, Encoded]:
        """One pass over the split's samples, each encoded once, by one of the processes.

        Returns:
            What they became, by setting of absent modalities.

        Raises:
            UserError: a setting leaves a sample without any modality.
        """
        for setting in settings:
            if lost := self.num_lost(setting):
                raise UserError(
                    f"With {title(setting)} absent, {lost} of {len(self.split.samples)} samples have no modality left. "
                    "Leave that setting out."
                )
        was_training = model.training
        model.eval()
        descriptors: dict[str, list[dict[str, Tensor]]] = {setting: [] for setting in settings}
        kept: dict[str, list[Tensor]] = {setting: [] for setting in settings}
        indices: list[Tensor] = []
        blank, total = None, len(self.split.samples)
        with progress_bar(total=total, desc=f"encode {self.split.name}", unit="img") as bar:
            for batch in self.loader:
                batch = batch.to(self.precision.device)
                images = self.transform(batch.images, batch.present)
                with self.precision.autocast():
                    if blank is None and not model.drop_absent and any(s != NOTHING for s in settings):
                        blank = model.blank_tokens(images)
                    views = [images, images.flip(-1)] if self.flip else [images]
                    tokens = [model.encode(view, batch.camera) for view in views]
                    for setting in settings:
                        outputs = self._decode(model, tokens, batch, setting, blank)
                        means = {
                            key: torch.stack([output.descriptors[key].float() for output in outputs]).mean(dim=0)
                            for key in outputs[0].descriptors
                        }
                        descriptors[setting].append(means)
                        if outputs[0].selection is not None:
                            kept[setting].append(torch.stack(outputs[0].selection.indices, dim=1))
                indices.append(batch.index)
                bar.update(distributed.world_size() * len(batch))
        model.train(was_training)
        index = torch.cat(indices)

        def of_all(rows: list[Tensor]) -> Tensor:
            return distributed.gather_samples(torch.cat(rows), index, total)

        return {
            setting: Encoded(
                {key: of_all([part[key] for part in parts]) for key in parts[0]},
                of_all(kept[setting]) if kept[setting] else None,
            )
            for setting, parts in descriptors.items()
        }

    def num_lost(self, setting: str) -> int:
        """How many samples `setting` leaves without any modality."""
        return int((~self.present(setting).any(dim=1)).sum())

    def present(self, setting: str) -> Tensor:
        """Which modalities of the split's samples `setting` leaves: (N, M) bool."""
        there = torch.tensor([[path is not None for path in sample.paths] for sample in self.split.samples])
        return there & ~torch.tensor(absent_modalities(setting))

    @staticmethod
    def _decode(
        model: ReIDModel, tokens: Sequence[Tensor], batch: Batch, setting: str, blank: Tensor | None
    ) -> list[ReIDOutput]:
        """What the views of a batch become when `setting` takes modalities away."""
        gone = torch.tensor(absent_modalities(setting), device=batch.present.device)
        present = batch.present & ~gone
        if setting != NOTHING and blank is not None:
            tokens = [model.without(of_view, gone, batch.camera, blank) for of_view in tokens]
        return [model.decode(of_view, present) for of_view in tokens]

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


def as_percent(result: RankingResult) -> dict[str, float]:
    """The figures that tables show, in percent, and the queries they are of."""
    figures = {
        "mAP": result.mAP,
        **{f"R{rank}": result.cmc[rank] for rank in (1, 5, 10)},
        "mINP": result.mINP,
    }
    return {name: 100 * float(value) for name, value in figures.items()} | {
        "queries": result.num_valid_queries,
        "queries_without_match": result.num_queries - result.num_valid_queries,
    }


def object_share(kept: Tensor, coverage: Tensor) -> dict[str, float]:
    """How much of the kept patches lies on the object, in percent, beside how much of all patches does.

    Args:
        kept: (N, M, S) int64, patches kept per image and modality.
        coverage: (N, P) share of each patch on the object.
    """
    of_kept = coverage.gather(1, kept.flatten(1)).mean()
    return {"kept_on_object": 100 * of_kept.item(), "all_on_object": 100 * coverage.mean().item()}


def result_row(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A row of the result table, from the record of an evaluation."""
    keys = ("epoch", "split", "eval", "selection")
    return {"name": name} | {key: record[key] for key in keys if key in record}


def format_table(rows: list[dict[str, Any]]) -> str:
    """Result rows as a table for the screen, a line per row and descriptor; queries that are not scored are counted."""
    figures = ("mAP", "R1", "R5", "R10", "mINP")
    header = ["model", "feature", *figures]
    lines = [header]
    for row in rows:
        for i, (descriptor, metrics) in enumerate(row["eval"].items()):
            lines.append([row["name"] if i == 0 else "", descriptor, *(f"{metrics[figure]:.1f}" for figure in figures)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * len(rendered[0])
    return "\n".join([rendered[0], rule, *rendered[1:], *_unscored(rows)])


def _unscored(rows: list[dict[str, Any]]) -> list[str]:
    """A line on the queries that no figure counts, where there are any."""
    figures = next(iter(rows[0]["eval"].values()))
    without = int(figures["queries_without_match"])
    if not without:
        return []
    return [
        f"{without} of {without + int(figures['queries'])} queries have no match in another view and are not scored."
    ]
