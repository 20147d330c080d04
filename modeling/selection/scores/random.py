"""Controls that know nothing of the image: another draw for each image, or one set of places for all."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.selection.scores.base import Score
from modeling.selection.types import UNKNOWN, Scores, TokenInfo

GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The constants of SplitMix64 (Steele et al., OOPSLA 2014), written as signed numbers."""


class RandomScore(Score):
    """Score patches at random: in training by a new draw, and in the evaluation by the image's place in the list.

    A control: a score that is worth no more than this one has found nothing.
    """

    def __init__(self, **_others: object) -> None:
        super().__init__()

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) uniformly in [0, 1)."""
        batch, modalities, length, _ = tokens.shape
        shape = batch, modalities, length - 1
        if self.training:
            return Scores(torch.rand(shape, device=tokens.device))
        index = torch.arange(batch, device=tokens.device) if info.index is None else info.index
        return Scores(uniform_by_index(index, shape[1:]))


class FixedScore(Score):
    """Score one random set of places highest, the same in all images and modalities.

    A control: it tells whether it matters which patches are kept, or only that they are always the same ones.

    Args:
        num_patches: N.
    """

    needs = frozenset({"grid"})

    def __init__(self, *, num_patches: int, **_others: object) -> None:
        super().__init__()
        self.register_buffer("value", torch.rand(num_patches))  # saved, because nothing else remembers the draw

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) by the place of each patch."""
        return Scores(self.value.expand(*tokens.shape[:2], -1))


def uniform_by_index(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return (B, *shape) float32 in [0, 1), of which row b is a function of `index[b]` (B,) int64 alone.

    It is the output of SplitMix64 for counters that start at `index` times the size of a row, so that it is the same on
    every device and in every batch.
    """
    places = torch.arange(torch.Size(shape).numel(), device=index.device).view(shape)
    state = (index.view(-1, *[1] * len(shape)) * places.numel() + places + 1) * GOLDEN
    state = (state ^ _shift(state, 30)) * FIRST
    state = (state ^ _shift(state, 27)) * SECOND
    return _shift(state ^ _shift(state, 31), 40).float() / 2**24


def _shift(state: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
