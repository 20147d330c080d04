"""Configuration: defaults, one YAML per experiment, command-line overrides; typed, validated, frozen."""

from configs.loading import get_cfg

__all__ = ["get_cfg"]
