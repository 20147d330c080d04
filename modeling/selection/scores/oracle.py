"""Controls that know where the object is: the most that the place of a patch can tell, and its opposite."""

from __future__ import annotations

from torch import Tensor

from modeling.selection.scores.base import Score
from modeling.selection.scores.random import uniform_by_index
from modeling.selection.types import UNKNOWN, Scores, TokenInfo

TIE_BREAK = 1e-4
"""It is far below the share of one pixel in a patch of 16 x 16, which is 1 / 256."""


class OracleScore(Score):
    """Score a patch by the share of it that lies on the object, which only the synthetic set knows.

    A control: no score can find the object better. It does not know which parts of the object tell identities apart.
    Equal shares are ranked at random, always in the same way.
    """

    needs = frozenset({"grid", "coverage"})

    def __init__(self, **_others: object) -> None:
        super().__init__()

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score tokens (B, M, 1+N, C) by the share of each patch."""
        return Scores(self._worth(info.coverage) + TIE_BREAK * uniform_by_index(info.index, info.coverage.shape[1:]))

    def _worth(self, coverage: Tensor) -> Tensor:
        return coverage


class AntiOracleScore(OracleScore):
    """Score a patch by the share of it that does not lie on the object, so that the background is kept.

    A control: what a model reaches with it, it has from the background and from what the blocks before have mixed.
    """

    def _worth(self, coverage: Tensor) -> Tensor:
        return 1 - coverage
