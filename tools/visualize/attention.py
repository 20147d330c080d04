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
from tools.visualize.gallery import Scene
from tools.visualize.sheet import Sheet, cell_size, grey_ground, outline, show_image, show_map
from tools.visualize.style import LEAST_PEAK, WEIGHT_MAP, Picture, save
from utils.errors import UserError

CELL, GAP, LEFT, TOP, BOTTOM = 2.1, 0.12, 0.5, 0.85, 0.55  # inches
OPACITY = 0.85
"""Of the patch that gets most; the others are the fainter the less they get."""
CAPTION = (
    "How much of its attention {who} gives to each patch, as a multiple of an even share, the mean over the heads. "
    "Last: in {block}. Rollout: followed through all blocks up to it, the residual connection counted as half "
    "(Abnar and Zuidema, ACL 2020)."
)


def draw_attention(scene: Scene, index: int, folder: Path, *, dpi: int) -> Picture:
    """The picture of sample `index`."""
    from matplotlib.colors import PowerNorm

    backbone = scene.model.backbone
    with recorded_attention(backbone.vit) as recorded:
        scene.output(index)
    length = backbone.num_prefix_tokens + backbone.num_patches
    # A backbone that slims its tokens on the way has maps of all patches only up to there.
    maps = [attention for attention in recorded if attention.shape[-1] == length]
    options = {"num_prefix": backbone.num_prefix_tokens, "has_class_token": backbone.has_class_token}
    columns = {
        "last": patch_attention(maps[-1], **options).cpu(),
        "rollout": patch_attention(rollout(maps), **options).cpu(),
    }

    sample, pixels, mask = scene.split.samples[index], scene.pixels(index), scene.mask(index)
    width, height = cell_size(scene.display_hw, CELL)
    x = [LEFT + column * (width + GAP) for column in range(3)]
    sheet = Sheet(max(x[-1] + width + 0.2, 4.2), TOP + len(MODALITIES) * (height + GAP) + BOTTOM)
    block = f"block {len(maps)} of {len(recorded)}"
    who = "the class token" if backbone.has_class_token else "the mean patch"
    sheet.title(LEFT, 0.12, f"Attention on {sample.name}", f"id {sample.pid}, camera {sample.camera + 1}; of {who}")
    shown = [m for m, image in enumerate(pixels) if image is not None]
    for m, name in enumerate(MODALITIES):
        y = TOP + m * (height + GAP)
        sheet.row_label(LEFT, y + height / 2, name)
        show_image(sheet.axes(x[0], y, width, height), pixels[m])
    sheet.text(x[0], TOP - 0.07, "image", va="baseline", fontweight="bold")
    for left, (name, values) in zip(x[1:], columns.items(), strict=True):
        peak = max(LEAST_PEAK, float(values[shown].max()))
        for m, image in enumerate(pixels):
            axes = sheet.axes(left, TOP + m * (height + GAP), width, height)
            if image is None:
                show_image(axes, None)
                continue
            show_image(axes, grey_ground(image))
            share = values[m].numpy()
            opacity = OPACITY * np.sqrt(share / peak).reshape(backbone.grid)
            norm = PowerNorm(0.5, 0, peak)  # a few patches get much more than the rest
            drawn = show_map(axes, share, backbone.grid, scene.display_hw, WEIGHT_MAP, norm=norm, alpha=opacity)
            outline(axes, mask)
        title = block if name == "last" else "rollout"
        sheet.text(left, TOP - 0.07, title, va="baseline", fontweight="bold")
        bottom = TOP + len(MODALITIES) * (height + GAP) + 0.02
        sheet.colour_bar(drawn, left, bottom, width - GAP, "x an even share")
    path = save(sheet.figure, folder / f"attention_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    return Picture(path, f"Attention on {sample.name}", CAPTION.format(who=who, block=block))


@contextmanager
def recorded_attention(vit: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, a forward pass of `vit` appends each block's attention (B, L, L), the mean over its heads, float32.

    timm's fused attention never has the matrix; it is turned off meanwhile, and the matrix is then what the block's
    attention dropout takes.

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
    """Attention followed through blocks, first to last: the product of (A + I) / 2 (Abnar & Zuidema, eq. 1-2).

    Args:
        maps: attention (B, L, L) of each block; rows sum to 1.
    """
    total = torch.eye(maps[0].shape[-1], device=maps[0].device).expand_as(maps[0])
    for attention in maps:
        total = (attention @ total + total) / 2
    return total


def patch_attention(attention: Tensor, *, num_prefix: int, has_class_token: bool) -> Tensor:
    """What the class token, the first, gives to the patches: (B, L, L) to (B, N), 1 for an even share.

    Without a class token it is the mean over the patches, as the model's global is. What goes to prefix tokens is left
    out of the sum.
    """
    rows = attention[:, 0] if has_class_token else attention[:, num_prefix:].mean(dim=1)
    patches = rows[:, num_prefix:]
    return patches / patches.mean(dim=1, keepdim=True)
