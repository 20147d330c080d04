"""What the patch selection does while it trains: a few figures per epoch, 'sdtps' in metrics.jsonl and TensorBoard.

Of the training batches, at the first place where SDTPS selects, means over images and modalities that are present:
    common               share of the kept patches that every present modality of the image keeps; independent choices
                         would give rho ** 2 with three modalities
    score_entropy        of softmax(score) over the patches, 1 where all score alike; scores lie within a unit, so that
                         it stays close to 1 and its distance from 1 is what tells
    weight_entropy       of a row of aggregation weights over the kept patches: 1 is their plain mean, 0 a single one
    predictor_attention  Pearson correlation of s_p with the attention part of the score over the patches of an image
    predictor_grad_norm  of the gradient that reaches the predictors, before clipping

Without Gumbel the last one comes through the extra token alone, since the top-K has no gradient, and the predictor
learns only to weigh the dropped patches. With Gumbel the straight-through part is added to it: small, for it passes a
softmax over all patches. A norm that falls to nothing says that the selection is no longer learned.

Of the evaluation ('selection' in the record), where the samples are the same every time: `moved`, the mean of
1 - IoU of the patches kept now and at the evaluation before, in percent.

Everything is summed on the device and read once per epoch.

Shapes: B batch, M modality, N patches, S kept patches, T aggregated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.selection.early import EarlySDTPS
from modeling.selection.sdtps import SDTPS, Selection

CONSTANT = 1e-5
"""Rows whose product of norms about the mean is below this have no correlation: what varies there is rounding."""


def kept_mask(indices: Tensor, num_patches: int) -> Tensor:
    """Kept patches (..., S) int64 as a mask (..., N) bool."""
    mask = torch.zeros((*indices.shape[:-1], num_patches), dtype=torch.bool, device=indices.device)
    return mask.scatter_(-1, indices, True)


def common_share(kept: Tensor, present: Tensor) -> Tensor:
    """Of masks (B, M, N), the share (B,) of kept patches that all modalities `present` (B, M) keep."""
    by_all = (kept | ~present.unsqueeze(-1)).all(dim=1).sum(dim=-1)
    return by_all / kept[:, 0].sum(dim=-1)


def entropy(weights: Tensor) -> Tensor:
    """Entropy of weights (..., N), which sum to 1, over its largest value log N: (...) in [0, 1]; 1 where N is 1."""
    size = weights.shape[-1]
    return torch.special.entr(weights).sum(dim=-1) / math.log(size) if size > 1 else torch.ones_like(weights[..., 0])


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of (..., N) with (..., N) over the last axis: (...); nan where one of them is constant."""
    first, second = (values - values.mean(dim=-1, keepdim=True) for values in (first, second))
    scale = first.norm(dim=-1) * second.norm(dim=-1)
    return torch.where(scale > CONSTANT, (first * second).sum(dim=-1) / scale, torch.nan)


def moved_share(kept: Tensor, before: Tensor) -> Tensor:
    """1 - IoU of two masks (..., N): (...); 0 where the same patches are kept, 1 where all are others."""
    return 1 - (kept & before).sum(dim=-1) / (kept | before).sum(dim=-1)


def gradient_norm(parameters: Iterable[nn.Parameter], scale: Tensor) -> Tensor | None:
    """Norm of the whole gradient of `parameters`, which was scaled by `scale`; None where there is no gradient."""
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) / scale if norms else None


def selection_figures(selection: Selection, present: Tensor) -> dict[str, Tensor]:
    """The figures of a batch by name, (B,) or (B, M), nan where there is nothing to count; `present` (B, M) bool."""
    score = torch.stack(selection.score, dim=1)  # (B, M, N)
    kept = kept_mask(torch.stack(selection.indices, dim=1), score.shape[-1])
    common = common_share(kept, present).where(present.sum(dim=1) > 1, torch.nan)
    by_modality = {
        "score_entropy": entropy(score.softmax(dim=-1)),
        "weight_entropy": entropy(torch.stack(selection.weights, dim=1)).mean(dim=-1),
    }
    if selection.predicted is not None:
        predicted, attention = torch.stack(selection.predicted, dim=1), torch.stack(selection.attention, dim=1)
        by_modality["predictor_attention"] = correlation(predicted, attention)
    return {"common": common} | {name: values.where(present, torch.nan) for name, values in by_modality.items()}


class SDTPSDiagnostics:
    """Gathers the figures of an epoch.

    Args:
        sdtps: the one that is watched; of an early selection, its first place.
        period: look at every so many steps, the first of an epoch included.
        num_patches: N.
    """

    def __init__(self, sdtps: SDTPS | EarlySDTPS, *, period: int, num_patches: int) -> None:
        first = next(iter(sdtps.stages.values())) if isinstance(sdtps, EarlySDTPS) else sdtps
        predictors = [sparse.score_predictor for sparse in first.sparse.values() if sparse.score_predictor is not None]
        self.parameters: Sequence[nn.Parameter] = [p for predictor in predictors for p in predictor.parameters()]
        self.period = period
        self.num_patches = num_patches
        self._sums: dict[str, Tensor] = {}
        """Sum and count (2,) by figure."""
        self._before: Tensor | None = None
        """(samples, M, N) bool, what the evaluation before kept."""

    @torch.no_grad()
    def add(self, step: int, selection: Selection, present: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Look at a step right after its backward pass, before `scaler` unscales; `present` (B, M) bool."""
        if step % self.period:
            return
        figures = selection_figures(selection, present)
        # The scale as a tensor: get_scale() would wait for the device.
        norm = gradient_norm(self.parameters, scaler.scale(torch.ones((), device=present.device)))
        if norm is not None:
            figures["predictor_grad_norm"] = norm
        for name, values in figures.items():
            counted = values.isfinite()  # a float16 gradient may overflow
            new = torch.stack([values.where(counted, 0.0).sum(), counted.sum()])
            self._sums[name] = self._sums[name].to(new.device) + new if name in self._sums else new

    def read(self) -> dict[str, dict[str, float]]:
        """{'sdtps': mean by figure} since the last reading; waits for the device."""
        if not self._sums:
            return {}
        totals = torch.stack(list(self._sums.values())).tolist()
        means = {name: total / count for name, (total, count) in zip(self._sums, totals, strict=True) if count}
        self._sums = {}
        return {"sdtps": means}

    def moved(self, indices: Tensor, present: Tensor) -> dict[str, float]:
        """{'moved': percent} of the kept patches (samples, M, S) of an evaluation; nothing at the first one.

        `present` (samples, M) bool; an absent modality's patches do not count.
        """
        kept = kept_mask(indices, self.num_patches)
        before, self._before = self._before, kept
        if before is None or before.shape != kept.shape:  # the first, or resumed with another set of samples
            return {}
        return {"moved": 100 * moved_share(kept, before.to(kept.device))[present].mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on with the same figures."""
        return {"sums": self._sums, "before": self._before}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._sums, self._before = content["sums"], content["before"]
