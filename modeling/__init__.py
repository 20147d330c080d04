"""The model: backbone, pretrained weights, SDTPS, heads, losses, and their composition."""

from modeling.build import build_loss, build_model

__all__ = ["build_loss", "build_model"]
