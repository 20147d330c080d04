"""Where the backbone looks: the attention of its class token, and attention rollout.

Shapes: B batch, M modality, L = prefix + N tokens, N patches, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from tools.visualize.sheet import Sheet, cell_size, grey_ground, outline, show_image, show_map
from tools.visualize.style import LEAST_PEAK, WEIGHT_MAP, Picture, save
from tools.visualize.subject import Subject
from utils.errors import UserError

CELL, GAP, LEFT, TOP, BOTTOM = 2.1, 0.12, 0.5, 0.85, 0.55  # inches
OPACITY = 0.85
"""The opacity of the patch that gets most attention; the others are fainter the less they get."""
CAPTION = (
    "How much attention {who} gives to each patch, as a multiple of an even share, averaged over the heads. Middle: in "
    "{block}. Rollout: followed through all blocks up to it, with the residual connection counted as half (Abnar and "
    "Zuidema, ACL 2020)."
)


def draw_attention(subject: Subject, index: int, folder: Path, *, dpi: int) -> Picture:
    """Draw the picture of sample `index`."""
    from matplotlib.colors import PowerNorm

    backbone = subject.model.backbone
    with recorded_attention(backbone.vit) as recorded:
        subject.output(index)
    length = backbone.num_prefix_tokens + backbone.num_patches
    # With a selection inside the backbone, only the blocks before it have maps of all patches.
    maps = [attention for attention in recorded if attention.shape[-1] == length]
    block = f"block {len(maps)} of {len(recorded)}"
    options = {"num_prefix": backbone.num_prefix_tokens, "has_class_token": backbone.has_class_token}
    columns = {
        block: patch_attention(maps[-1], **options).cpu(),
        "rollout": patch_attention(rollout(maps), **options).cpu(),
    }

    sample, pixels, mask = subject.split.samples[index], subject.pixels(index), subject.mask(index)
    width, height = cell_size(subject.display_hw, CELL)
    x = [LEFT + column * (width + GAP) for column in range(3)]
    y = [TOP + m * (height + GAP) for m in range(len(MODALITIES))]
    bottom = y[-1] + height + GAP
    sheet = Sheet(max(x[-1] + width + 0.2, 4.2), bottom + BOTTOM)
    who = "the class token" if backbone.has_class_token else "the average patch"
    sheet.title(LEFT, 0.12, f"Attention on {sample.name}", f"id {sample.pid}, camera {sample.camera + 1}; of {who}")
    for left, name in zip(x, ("image", *columns), strict=True):
        sheet.text(left, TOP - 0.07, name, va="baseline", fontweight="bold")
    for top, name, image in zip(y, MODALITIES, pixels, strict=True):
        sheet.row_label(LEFT, top + height / 2, name)
        for left in x if image is None else x[:1]:
            show_image(sheet.axes(left, top, width, height), image)
    shown = [m for m, image in enumerate(pixels) if image is not None]
    for left, values in zip(x[1:], columns.values(), strict=True):
        peak = max(LEAST_PEAK, float(values[shown].max()))
        norm = PowerNorm(0.5, 0, peak)  # a few patches get much more than the rest
        for m in shown:
            axes = sheet.axes(left, y[m], width, height)
            show_image(axes, grey_ground(pixels[m]))
            share = values[m].numpy()
            opacity = OPACITY * np.sqrt(share / peak).reshape(backbone.grid)
            drawn = show_map(axes, share, backbone.grid, subject.display_hw, WEIGHT_MAP, norm=norm, alpha=opacity)
            outline(axes, mask)
        sheet.colour_bar(drawn, left, bottom + 0.02, width - GAP, "x an even share")
    path = save(sheet.figure, folder / f"attention_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    return Picture(path, f"Attention on {sample.name}", CAPTION.format(who=who, block=block))


@contextmanager
def recorded_attention(vit: nn.Module) -> Iterator[list[Tensor]]:
    """Append the attention (B, L, L) of each block, averaged over its heads, in every forward pass of `vit` within.

    timm's fused attention never holds the matrix, so it is switched off meanwhile; the matrix is then the input of the
    block's attention dropout. The maps are float32.

    Raises:
        UserError: the blocks are of another kind.
    """
    attentions = [getattr(block, "attn", None) for block in vit.blocks]
    if not all(hasattr(attention, "attn_drop") and hasattr(attention, "fused_attn") for attention in attentions):
        raise UserError(
            f"The blocks of this backbone, {type(vit.blocks[0]).__name__}, do not show their attention. Allowed: "
            "timm's VisionTransformer and Eva models with plain blocks, ViT-B-16 among them."
        )
    maps: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps.append(inputs[0].float().mean(dim=1))

    fused = [attention.fused_attn for attention in attentions]
    handles = [attention.attn_drop.register_forward_pre_hook(record) for attention in attentions]
    try:
        for attention in attentions:
            attention.fused_attn = False
        yield maps
    finally:
        for attention, was_fused, handle in zip(attentions, fused, handles, strict=True):
            attention.fused_attn = was_fused
            handle.remove()


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Follow attention through blocks, first to last: the product of (A + I) / 2 (Abnar & Zuidema, eq. 1-2).

    Args:
        maps: attention (B, L, L) of each block; rows sum to 1.
    """
    total = torch.eye(maps[0].shape[-1], device=maps[0].device).expand_as(maps[0])
    for attention in maps:
        total = (attention @ total + total) / 2
    return total


def patch_attention(attention: Tensor, *, num_prefix: int, has_class_token: bool) -> Tensor:
    """Reduce attention (B, L, L) to what the class token gives to each patch: (B, N), 1 for an even share.

    Without a class token it is the mean over the patches, as the model's global is. Attention to prefix tokens is left
    out of the sum.
    """
    rows = attention[:, 0] if has_class_token else attention[:, num_prefix:].mean(dim=1)
    patches = rows[:, num_prefix:]
    return patches / patches.mean(dim=1, keepdim=True)
