"""Scores: how much each patch of each modality is worth keeping (`base.py`). They are found here by their names."""

from modeling.selection.scores.aligned import AlignedScore
from modeling.selection.scores.attention import ATSScore, AttentionScore, EditorScore, RolloutScore
from modeling.selection.scores.base import Score
from modeling.selection.scores.centre import CentreScore
from modeling.selection.scores.oracle import AntiOracleScore, OracleScore
from modeling.selection.scores.random import FixedScore, RandomScore
from modeling.selection.scores.sdtps import OpenCodeScore, SDTPSScore
from modeling.selection.scores.signal import SignalScore

SCORES: dict[str, type[Score]] = {
    "sdtps": SDTPSScore,
    "opencode": OpenCodeScore,
    "aligned": AlignedScore,
    "attention": AttentionScore,
    "rollout": RolloutScore,
    "ats": ATSScore,
    "editor": EditorScore,
    "signal": SignalScore,
    "random": RandomScore,
    "fixed": FixedScore,
    "centre": CentreScore,
    "oracle": OracleScore,
    "anti_oracle": AntiOracleScore,
}
"""The choices of MODEL.SDTPS_SCORE."""
