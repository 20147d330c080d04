"""What the patch selection does while it trains: a few metrics per epoch, for metrics.jsonl and TensorBoard.

Under 'sdtps', from every LOG_PERIOD-th training step and the first selection, means over the present modalities:
    common               share of the kept patches that every present modality of the image keeps; independent choices
                         would give rho ** 2 with three modalities
    score_entropy        of softmax(score) over the patches, 1 where all score alike; the range of scores is small,
                         so it stays close to 1, and the distance from 1 is what to watch
    weight_entropy       of a row of aggregation weights over the kept patches: 1 is their plain mean, 0 a single one
    predictor_attention  Pearson correlation of s_p with the attention part of the score over the patches of an image
    predictor_grad_norm  of the gradient that reaches the parameters of the score, before clipping

Without Gumbel the last one comes through the extra token alone, since the top-K has no gradient, and the predictor
learns only to weigh the dropped patches. With Gumbel the straight-through part is added to it, which is small because
it passes a softmax over all patches. A norm that falls to nothing says that the selection is no longer learned.

Under 'selection', of the evaluation, where the samples are the same every time: `moved`, the mean of 1 - IoU of the
patches kept now and at the evaluation before, in percent.

The metrics of training are summed on the device and read once per epoch.

Shapes: B batch, M modality, N patches, S kept patches, T aggregated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modeling.model import ReIDOutput
from modeling.selection.patch_selection import PatchSelection
from modeling.selection.types import Selection

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


def selection_metrics(selection: Selection, present: Tensor) -> dict[str, Tensor]:
    """Measure a batch: (B,) or (B, M) by name, nan where there is nothing to count; `present` (B, M) bool."""
    score = torch.stack(selection.score, dim=1)  # (B, M, N)
    kept = kept_mask(torch.stack(selection.indices, dim=1), score.shape[-1])
    by_modality = {"score_entropy": entropy(score.softmax(dim=-1))}
    if selection.weights is not None:
        by_modality["weight_entropy"] = entropy(torch.stack(selection.weights, dim=1)).mean(dim=-1)
    if "predicted" in selection.parts:
        predicted, attention = (torch.stack(selection.parts[name], dim=1) for name in ("predicted", "attention"))
        by_modality["predictor_attention"] = correlation(predicted, attention)
    common = common_share(kept, present).where(present.sum(dim=1) > 1, torch.nan)
    return {"common": common} | {name: values.where(present, torch.nan) for name, values in by_modality.items()}


class SelectionDiagnostics:
    """Gather the metrics of an epoch; an observer in the sense of `engine.observers`.

    Args:
        selection: the patch selection that is watched.
        period: look at the first step of an epoch and at every `period`-th after it.
    """

    name = "diagnostics"

    def __init__(self, selection: PatchSelection, *, period: int) -> None:
        self.parameters = list(selection.score.parameters())
        self.period = period
        self.num_patches = selection.num_patches
        self._sums: dict[str, Tensor] = {}
        """Sum and count (2,) by metric."""
        self._before: Tensor | None = None
        """(samples, M, N) bool, what the evaluation before kept."""

    @torch.no_grad()
    def after_backward(self, step: int, output: ReIDOutput, present: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Look at a step right after its backward pass, before `scaler` unscales; `present` (B, M) bool."""
        if step % self.period:
            return
        metrics = selection_metrics(output.selection, present)
        # The scale as a tensor: get_scale() would wait for the device.
        norm = gradient_norm(self.parameters, scaler.scale(torch.ones((), device=present.device)))
        if norm is not None:
            metrics["predictor_grad_norm"] = norm
        for name, values in metrics.items():
            finite = values.isfinite()  # nan: nothing to count; inf: a float16 gradient has overflowed
            new = torch.stack([values.where(finite, 0.0).sum(), finite.sum()])
            self._sums[name] = self._sums[name].to(new.device) + new if name in self._sums else new

    def after_evaluation(self, kept: Tensor, present: Tensor) -> dict[str, float]:
        """Return {'moved': percent} for the patches (samples, M, S) that an evaluation kept; nothing at the first one.

        `present` (samples, M) bool; the patches of an absent modality do not count.
        """
        mask = kept_mask(kept, self.num_patches)
        before, self._before = self._before, mask
        if before is None or before.shape != mask.shape:  # the first, or resumed with another set of samples
            return {}
        return {"moved": 100 * moved_share(mask, before.to(mask.device))[present].mean().item()}

    def read(self) -> dict[str, dict[str, float]]:
        """Return {'sdtps': mean by metric} since the last reading; this waits for the device."""
        if not self._sums:
            return {}
        totals = torch.stack(list(self._sums.values())).tolist()
        means = {name: total / count for name, (total, count) in zip(self._sums, totals, strict=True) if count}
        self._sums = {}
        return {"sdtps": means}

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to go on with the same metrics."""
        return {"sums": self._sums, "before": self._before}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._sums, self._before = content["sums"], content["before"]
