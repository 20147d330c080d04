"""Build the optimiser with its parameter groups, and the learning-rate schedule."""

from solver.build import build_optimizer, build_schedule

__all__ = ["build_optimizer", "build_schedule"]
