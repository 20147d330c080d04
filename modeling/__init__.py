"""The model: backbone, patch selection, branches, heads, losses, and their composition."""

from modeling.build import build_loss, build_model, build_observers

__all__ = ["build_loss", "build_model", "build_observers"]
