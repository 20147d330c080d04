"""Configuration: declared keys, one YAML file per experiment, and overrides; typed, validated and frozen."""

from pathlib import Path

from configs.loading import get_cfg

DEFAULT_CONFIG = Path(__file__).parent / "Synthetic" / "DeMo_SDTPS.yml"
"""The experiment that the scripts run when none is named."""

__all__ = ["DEFAULT_CONFIG", "get_cfg"]
