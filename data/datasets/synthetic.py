"""The synthetic set shows persons that data/synthetic draws on first use and writes in RGBNT201's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.datasets.base import DataSet
from data.datasets.listing import Scan
from data.datasets.rgbnt201 import RGBNT201
from data.synthetic import SyntheticSpec, ensure_synthetic


@dataclass(frozen=True, kw_only=True)
class Synthetic(DataSet):
    """This data set is generated."""

    def prepare(self, root: Path, *, settings: Mapping[str, Any], workers: int) -> Path:
        """Generate the set in `root`, unless it exists already, and return its folder."""
        values = dict(settings)
        spec = SyntheticSpec(size_hw=tuple(values.pop("size")), **values)
        return ensure_synthetic(root, spec, workers=workers)

    def scan(self, root: Path) -> Scan:
        return replace(RGBNT201, name=self.name, source=self.source).scan(root)


SYNTHETIC = Synthetic(name="synthetic", source="train_net.py generates it on first use", protocol="camera")
