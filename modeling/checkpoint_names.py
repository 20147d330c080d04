"""Names of parameters in checkpoints of this framework from before branches and selections were parts."""

from __future__ import annotations

import re
from typing import Any

RENAMED: tuple[tuple[str, str], ...] = (
    (r"pife\.", "transforms.pife."),
    (r"(hdm|atmoe)\.", r"branches.moe.\1."),
    (r"sdtps\.stages\.(\d+)\.sparse\.(\w+)\.score_predictor\.", r"reducers.\1.score.predictor.\2."),
    (r"sdtps\.stages\.(\d+)\.aggregation\.", r"reducers.\1.aggregation."),
    (r"sdtps\.sparse\.(\w+)\.score_predictor\.", r"branches.sdtps.selection.score.predictor.\1."),
    (r"sdtps\.aggregation\.", "branches.sdtps.selection.aggregation."),
)
"""Beginning of a name at that time, and what stands there today."""


def upgrade_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return a model's state dict under today's names, in its own order; names of today stay as they are."""
    return {_upgraded(name): value for name, value in state.items()}


def _upgraded(name: str) -> str:
    for former, present in RENAMED:
        if match := re.match(former, name):
            return match.expand(present) + name[match.end() :]
    return name
