"""One pass over the images, every feature pattern scored from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.records import Batch
from data.splits import EvalSplit
from engine.metrics import RankingResult, evaluate_ranking
from engine.precision import Precision
from modeling.model import ReIDOutput
from utils import distributed
from utils.progress import progress_bar


@dataclass(frozen=True)
class Encoded:
    """What a split's images became; row i is sample i."""

    patterns: dict[str, Tensor]
    """(N, D) float32 by pattern, on the device."""
    kept: Tensor | None
    """(N, M, S) int64, the patches that SDTPS kept, on the device."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores a model on one split.

    Args:
        split: query and gallery.
        loader: batches of its samples; of several processes each has its own, and all of them get the same figures.
        transform: (images uint8, present) to the normalised float batch.
        headline: the pattern whose mAP decides on 'best'.
        normalize_features: scale to unit length before the distance.
        coverage: (N, patches) share of each patch that is on the object, where the data set knows it.
    """

    split: EvalSplit
    loader: Iterable[Batch]
    transform: Callable[[Tensor, Tensor], Tensor]
    precision: Precision
    headline: str
    normalize_features: bool = True
    coverage: Tensor | None = None

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """The record of an evaluation: 'score' and, by pattern, mAP, R1, R5, R10, mINP in percent."""
        encoded = self.encode(model)
        results = {name: self.rank(features) for name, features in encoded.patterns.items()}
        record: dict[str, Any] = {
            "split": self.split.name,
            "eval": {name: as_percent(result) for name, result in results.items()},
        }
        record["score"] = record["eval"][self.headline]["mAP"]
        if encoded.kept is not None and self.coverage is not None:
            record["selection"] = object_share(encoded.kept, self.coverage.to(encoded.kept.device))
        return record

    @torch.inference_mode()
    def encode(self, model: nn.Module) -> Encoded:
        """One pass over the split's samples, each encoded once, by one of the processes."""
        was_training = model.training
        model.eval()
        outputs: list[ReIDOutput] = []
        indices: list[Tensor] = []
        total = len(self.split.samples)
        with progress_bar(total=total, desc=f"encode {self.split.name}", unit="img") as bar:
            for batch in self.loader:
                batch = batch.to(self.precision.device)
                with self.precision.autocast():
                    output = model(self.transform(batch.images, batch.present), batch.camera)
                outputs.append(output)
                indices.append(batch.index)
                bar.update(distributed.world_size() * len(batch))
        model.train(was_training)
        index = torch.cat(indices)

        def of_all(rows: list[Tensor]) -> Tensor:
            return distributed.gather_samples(torch.cat(rows), index, total)

        patterns = {name: of_all([output.patterns[name].float() for output in outputs]) for name in outputs[0].patterns}
        kept = None
        if outputs[0].selection is not None:
            kept = of_all([torch.stack(output.selection.indices, dim=1) for output in outputs])
        return Encoded(patterns, kept)

    def rank(self, features: Tensor) -> RankingResult:
        """Rank the gallery for every query by `features` (N, D) of the split's samples."""
        if self.normalize_features:
            features = F.normalize(features, dim=1)
        device = features.device
        query, gallery = (torch.from_numpy(index).to(device) for index in (self.split.query, self.split.gallery))
        pids, views = (torch.from_numpy(values).to(device) for values in (self.split.pids, self.split.views))
        return evaluate_ranking(
            features[query], pids[query], views[query], features[gallery], pids[gallery], views[gallery]
        )


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
    """Result rows as a table for the screen, a line per row and pattern."""
    figures = ("mAP", "R1", "R5", "R10", "mINP")
    header = ["model", "feature", *figures]
    lines = [header]
    for row in rows:
        for i, (pattern, metrics) in enumerate(row["eval"].items()):
            lines.append([row["name"] if i == 0 else "", pattern, *(f"{metrics[figure]:.1f}" for figure in figures)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * len(rendered[0])
    return "\n".join([rendered[0], rule, *rendered[1:]])
