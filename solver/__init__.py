"""Optimiser, parameter groups and learning-rate schedule."""

from solver.build import build_optimizer, build_schedule

__all__ = ["build_optimizer", "build_schedule"]
