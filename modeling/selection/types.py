"""What the parts of a patch selection hand to each other, and what a selection tells the outside.

Shapes: B batch, M modality, N patches, S kept patches, T aggregated tokens, C width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scores:
    """What a score gives."""

    value: Tensor
    """(B, M, N) float32; the highest are kept."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """(B, M, N) float32 by name: what the value is made of, for pictures and diagnostics."""


@dataclass(frozen=True, slots=True)
class SparseTokens:
    """What `TokenSparse` makes of the patches of one modality."""

    kept: Tensor
    """(B, S, C), best score first."""
    extra: Tensor | None
    """(B, 1, C), the dropped patches weighted by the softmax of their scores; None when nothing is dropped."""
    decision: Tensor
    """(B, N), D: 1 for kept, 0 for dropped; carries the straight-through gradient in training with Gumbel on."""
    indices: Tensor
    """(B, S) int64, the kept patches."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was kept of the patches, for pictures and diagnostics; every tuple has one entry per modality."""

    indices: tuple[Tensor, ...]
    """M x (B, S) int64, kept patches, best first."""
    score: tuple[Tensor, ...]
    """M x (B, N) float32."""
    weights: tuple[Tensor, ...] | None
    """M x (B, T, S) float32, how each aggregated token is made of the kept patches (in the order of `indices`); None
    where the kept patches are not aggregated."""
    parts: dict[str, tuple[Tensor, ...]]
    """M x (B, N) float32 by name, what the score is made of (see `Scores`)."""
