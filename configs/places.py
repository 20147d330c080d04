"""Where SDTPS selects, and how much: keys that hold one value, or a list with one for each place."""

from __future__ import annotations

from typing import Any, NamedTuple

from yacs.config import CfgNode


class Place(NamedTuple):
    """One selection."""

    block: int
    """Blocks of the backbone before it; 0 stands for all."""
    sparse_ratio: float
    aggr_ratio: float


def sdtps_places(model: CfgNode) -> list[Place]:
    """The places of cfg.MODEL, in the order of the blocks."""
    blocks = as_list(model.SDTPS_BLOCK)
    ratios = (as_list(model[key], len(blocks)) for key in ("SDTPS_SPARSE_RATIO", "SDTPS_AGGR_RATIO"))
    return [Place(*values) for values in zip(blocks, *ratios, strict=True)]


def as_list(value: Any, length: int = 1) -> list:
    """A list as it is, one value repeated."""
    return value if isinstance(value, list) else [value] * length
