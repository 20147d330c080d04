"""What the parts of a patch selection hand to each other, and what a selection tells the outside.

Shapes: B batch, M modality, N patches, S kept patches, T aggregated tokens, C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What is known of a batch of tokens beside their values, for the parts that ask for it; None: it is not known."""

    index: Tensor | None = None
    """(B,) int64, the position of each image in the list of samples."""
    coverage: Tensor | None = None
    """(B, M, N) float32, the share of each patch of the image that lies on the object."""
    recorded: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, M, ...) by name, what the backbone recorded in its blocks; see `modeling.backbone.records`."""
    sizes: Tensor | None = None
    """(B, M, N) float32, as how many patches of the image each of the tokens counts; None: one."""


UNKNOWN = TokenInfo()


@dataclass(frozen=True, slots=True)
class Scores:
    """What a score gives."""

    value: Tensor
    """(B, M, N) float32; the highest are kept."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """(B, M, N) float32 by name: what the value is made of, for pictures and diagnostics."""
    pooled: Tensor | None = None
    """(B, M, C) float32: the patches of each modality, averaged as the score weighs them, for the head that teaches it;
    None where it has no head."""


@dataclass(frozen=True, slots=True)
class SparseTokens:
    """What `TokenSparse` makes of the patches of one modality."""

    kept: Tensor
    """(B, S, C), best score first."""
    extra: Tensor | None
    """(B, 1, C), the dropped patches weighted by the softmax of their scores; None where no patch is dropped or no
    extra token is wanted."""
    decision: Tensor
    """(B, N), D: 1 for kept, 0 for dropped; carries the straight-through gradient in training with Gumbel on."""
    indices: Tensor
    """(B, S) int64, the kept patches."""
    gates: Tensor | None
    """(B, S) float32, or (B, S+1) with the extra token last: how much each token counts; None: all alike."""


@dataclass(frozen=True, slots=True)
class KeptInfo:
    """What an aggregation that merges has to know of the kept patches of one modality."""

    places: Tensor
    """(B, S) int64, where they lie among the N patches."""
    keys: Tensor
    """(B, S, d) float32, their keys in the block before."""
    sizes: Tensor
    """(B, S) float32, how many patches of the image each of them stands for."""


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
    sizes: Tensor | None = None
    """(B, M, T) float32, as how many patches of the image each of the tokens that come out counts, in the attention of
    the blocks that follow and in means; None: all alike."""
    pooled: Tensor | None = None
    """(B, M, C) float32, what the head of the score reads (see `Scores`)."""
