"""Aggregations: what becomes of the kept patches. One class in one file each, found here by its name.

An aggregation is a module for one modality, built as `cls(embed_dim, num_tokens)` with the number of tokens that
`cls.count(num_patches, sparse_ratio, aggr_ratio)` gives. It is called as `aggregation(tokens, mask=None)` with the kept
tokens (B, S, C), or, if `uses_mask` says that it accepts one, with all of them and the decision D as the mask. It
returns the new tokens (B, T, C) and the weights (B, T, S) that made them, or None where there are none.
"""

from torch import nn

from modeling.selection.aggregations.learned import TokenAggregation
from modeling.selection.aggregations.none import NoAggregation

AGGREGATIONS: dict[str, type[nn.Module]] = {"learned": TokenAggregation, "none": NoAggregation}
"""The choices of MODEL.SDTPS_AGGREGATION."""
