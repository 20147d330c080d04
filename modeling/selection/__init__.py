"""Patch selection: score x keep x aggregate (`patch_selection.py`), after the backbone or between its blocks.

SDTPS, the cross-modal patch selection after SEPS ("Semantic-Enhanced Patch Slimming"), is one choice of each part: the
score of eq. 1-3, the top-K of `TokenSparse` with its extra token, and the aggregation of eq. 4.
"""

from functools import partial

from modeling.selection.aggregations import AGGREGATIONS
from modeling.selection.aggregations.learned import TokenAggregation
from modeling.selection.patch_selection import PatchSelection
from modeling.selection.scores import SCORES
from modeling.selection.sparse import TokenSparse
from modeling.selection.types import UNKNOWN, Selection, TokenInfo

SDTPS = partial(PatchSelection, score="sdtps", aggregation="learned")

__all__ = [
    "AGGREGATIONS",
    "SCORES",
    "SDTPS",
    "UNKNOWN",
    "PatchSelection",
    "Selection",
    "TokenAggregation",
    "TokenInfo",
    "TokenSparse",
]
