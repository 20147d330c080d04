"""Patch selection: score x keep x aggregate (`sdtps.py`), usable after the backbone and between its blocks."""

from modeling.selection.aggregations import AGGREGATIONS
from modeling.selection.aggregations.learned import TokenAggregation
from modeling.selection.scores import SCORES
from modeling.selection.sdtps import SDTPS
from modeling.selection.sparse import TokenSparse
from modeling.selection.types import Selection

__all__ = ["AGGREGATIONS", "SCORES", "SDTPS", "Selection", "TokenAggregation", "TokenSparse"]
