"""The timm models that serve as backbones: those that have a name of their own here, and how one is built to size."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

import timm
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from utils.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """A backbone that has a name of its own here: the timm model it is made of, and the projection of its tokens."""

    timm_name: str
    timm_kwargs: dict[str, Any] = field(default_factory=dict)
    proj_dim: int | None = None
    """Width of a bias-free projection on every token after the last norm; None leaves the tokens as they are."""


ARCHITECTURES: dict[str, Architecture] = {
    # OpenAI CLIP's image tower (Radford et al., ICML 2021), its projection to 512 on every token.
    "ViT-B-16": Architecture("vit_base_patch16_clip_quickgelu_224", proj_dim=512),
    # For CPUs: 128 patches of a 128 x 64 image.
    "ViT-Micro-8": Architecture("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3}),
    # For CPUs too, narrow and as deep as ViT-B-16, to study settings that depend on depth (MODEL.SDTPS_BLOCK).
    "ViT-Narrow-8": Architecture("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 64, "num_heads": 2}),
    # The smallest that still has every part, for smoke tests of a pipeline (`tools.benchmark --quick` uses it, too).
    "ViT-Test": Architecture("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}),
    "ViT-Test-CLIP": Architecture(
        "vit_base_patch16_clip_quickgelu_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, proj_dim=24
    ),
}


def create_vit(
    name: str, architecture: Architecture, img_size: tuple[int, int], drop_path_rate: float
) -> VisionTransformer | Eva:
    """Build the timm model without a head."""
    timm_name = architecture.timm_name
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(name, [*ARCHITECTURES, *timm.list_models()], n=4, cutoff=0.5)
        raise UserError(
            f"MODEL.TRANSFORMER_TYPE is {name!r}, which neither this framework nor timm {timm.__version__} has. "
            f"{'Near names: ' + ', '.join(near) if near else 'Try ViT-B-16, or a timm vit_, deit_ or eva02_ model'}."
        )
    try:
        vit = timm.create_model(
            timm_name,
            num_classes=0,
            global_pool="",  # the last norm on every token, and no pooling layer that nothing would train
            img_size=img_size,
            drop_path_rate=drop_path_rate,
            **architecture.timm_kwargs,
        )
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(
            f"MODEL.TRANSFORMER_TYPE {name!r} cannot be built for images of {img_size[0]} x {img_size[1]} "
            f"(INPUT.SIZE_TRAIN): {error}"
        ) from error
    if not isinstance(vit, (VisionTransformer, Eva)):
        raise UserError(
            f"MODEL.TRANSFORMER_TYPE is {name!r}, a {type(vit).__name__}. Allowed: timm models of the kinds "
            "VisionTransformer and Eva, whose tokens are patches."
        )
    return vit


def set_stride(
    vit: VisionTransformer | Eva, name: str, img_size: tuple[int, int], stride: tuple[int, int] | None
) -> tuple[int, int]:
    """Make the patch embedding step by `stride` and the position embedding fit; return the grid (rows, columns)."""
    patch = vit.patch_embed.patch_size
    stride = stride or patch
    if any(s > p or i < p for s, p, i in zip(stride, patch, img_size, strict=True)):
        raise UserError(
            f"MODEL.STRIDE_SIZE is {list(stride)} and INPUT.SIZE_TRAIN {list(img_size)}, but the patches of {name} are "
            f"{patch[0]} x {patch[1]}. The stride may not exceed the patch, nor the patch the image."
        )
    grid = tuple((i - p) // s + 1 for i, p, s in zip(img_size, patch, stride, strict=True))
    if stride != patch:
        if vit.pos_embed is None:
            raise UserError(
                f"MODEL.STRIDE_SIZE is {list(stride)}, but {name} has no learned position embedding that could follow "
                f"overlapping patches. Allowed: {list(patch)}."
            )
        prefix = vit.pos_embed.shape[1] - vit.patch_embed.num_patches
        vit.patch_embed.proj.stride = stride
        vit.patch_embed.grid_size, vit.patch_embed.num_patches = grid, grid[0] * grid[1]
        vit.pos_embed = nn.Parameter(vit.pos_embed.new_empty(1, prefix + grid[0] * grid[1], vit.embed_dim))
        nn.init.trunc_normal_(vit.pos_embed, std=0.02)
    return grid
