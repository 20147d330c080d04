"""Aggregations: what becomes of the kept patches (`base.py`). They are found here by their names."""

from modeling.selection.aggregations.base import Aggregation
from modeling.selection.aggregations.learned import TokenAggregation, num_aggregated
from modeling.selection.aggregations.mean import MeanAggregation
from modeling.selection.aggregations.merge import MergeAggregation
from modeling.selection.aggregations.none import NoAggregation

AGGREGATIONS: dict[str, type[Aggregation]] = {
    "learned": TokenAggregation,
    "none": NoAggregation,
    "mean": MeanAggregation,
    "merge": MergeAggregation,
}
"""The choices of MODEL.SDTPS_AGGREGATION."""
SHRINKING = tuple(name for name, part in AGGREGATIONS.items() if part.count is num_aggregated)
"""Those whose number of tokens MODEL.SDTPS_AGGR_RATIO sets."""
