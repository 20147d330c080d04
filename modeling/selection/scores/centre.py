"""A control: keep the patches in the middle of the image, whatever they show."""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.selection.scores.base import Score
from modeling.selection.types import UNKNOWN, Scores, TokenInfo

ROW_WEIGHT = 0.3
"""How much a row counts beside a column: persons stand upright and fill the height of their image."""


class CentreScore(Score):
    """Score a patch by its distance from the centre of the image, whatever it shows.

    Images of persons are centred, so a learned score has to beat this one before it can claim to find the person.

    Args:
        grid: rows and columns of patches.
    """

    needs = frozenset({"grid"})

    def __init__(self, *, grid: tuple[int, int], **_others: object) -> None:
        super().__init__()
        rows, columns = (torch.arange(size) - (size - 1) / 2 for size in grid)
        distance = torch.hypot(ROW_WEIGHT * rows[:, None], columns[None, :]).flatten()
        # It is not saved, because it follows from the grid.
        self.register_buffer("value", 1 - distance / distance.max().clamp_min(1), persistent=False)

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C): highest at the centre and 0 in the corners, the same in every image."""
        return Scores(self.value.expand(*tokens.shape[:2], -1))
