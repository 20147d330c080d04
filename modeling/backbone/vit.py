"""The shared backbone: a timm vision transformer over the stacked modalities, with camera embedding and any stride.

Shapes: B batch, M modality, L = 1 + N tokens (global, then patches), W width inside, C width of the output tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modeling.backbone.attention import attention_precision
from modeling.selection import Selection
from utils.errors import UserError

SIE_STD = 0.02

Reducer = Callable[[Tensor, Tensor | None], tuple[Tensor, Selection]]


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


class ViTBackbone(nn.Module):
    """Turn images of M modalities into tokens, all modalities in one pass.

    Args:
        name: a key of ARCHITECTURES, or a timm VisionTransformer or Eva model.
        img_size: height and width in pixels.
        stride: step between patches (height, width) in pixels; None is the patch size. A smaller one overlaps them:
            floor((size - patch) / stride) + 1 patches a side.
        num_cameras: rows of the camera embedding (SIE, He et al., ICCV 2021); 0 leaves it out.
        sie_coe: factor on it.
        drop_path_rate: stochastic depth.
        grad_checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Raises:
        UserError: an unknown model, or a size, patch and stride that do not fit each other.
    """

    def __init__(
        self,
        name: str,
        *,
        img_size: tuple[int, int],
        stride: tuple[int, int] | None,
        num_cameras: int,
        sie_coe: float,
        drop_path_rate: float,
        grad_checkpointing: bool,
    ) -> None:
        super().__init__()
        architecture = ARCHITECTURES.get(name) or Architecture(name)
        self.name = name
        self.timm_name = architecture.timm_name
        self.vit = _create_vit(name, architecture, img_size, drop_path_rate)
        self.width = width = self.vit.embed_dim
        self.has_rope = getattr(self.vit, "rope", None) is not None
        self.num_prefix_tokens = self.vit.num_prefix_tokens
        self.has_class_token = self.vit.cls_token is not None
        self.grid = _set_stride(self.vit, name, img_size, stride)
        self.num_patches = self.grid[0] * self.grid[1]
        self.num_blocks = len(self.vit.blocks)
        self.grad_checkpointing = grad_checkpointing

        self.proj = None
        if architecture.proj_dim is not None:
            self.proj = nn.Linear(width, architecture.proj_dim, bias=False)
            nn.init.normal_(self.proj.weight, std=width**-0.5)
        self.embed_dim = architecture.proj_dim or width

        self.num_cameras = num_cameras
        self.sie_coe = sie_coe
        self.sie_embed = None
        if num_cameras:
            self.sie_embed = nn.Parameter(torch.zeros(num_cameras, width))
            nn.init.trunc_normal_(self.sie_embed, std=SIE_STD)

    @property
    def is_clip(self) -> bool:
        """Tell whether this is CLIP's tower, with a norm before the blocks; SIE then goes on the class token alone."""
        return not isinstance(self.vit.norm_pre, nn.Identity)

    def forward(self, images: Tensor, camera: Tensor, *, stop: int | None = None) -> Tensor:
        """Images (B, M, 3, H, W) and camera (B,) int64 to tokens (B, M, 1+N, C), the global first.

        With `stop`, the tokens (B, M, prefix+N, W) after that many blocks come out, from which `resume` goes on.
        """
        tokens, rope = self.embed(images, camera)
        assert stop is None or rope is None, "without a learned position embedding the tokens cannot leave their grid"
        tokens = self.run_blocks(tokens, stop=stop, rope=rope)
        if stop is not None:
            return tokens.unflatten(0, (-1, images.shape[1]))
        return self.finalize(tokens, num_modalities=images.shape[1])

    def resume(
        self, tokens: Tensor, reducers: Mapping[str, Reducer], present: Tensor | None = None
    ) -> tuple[Tensor, Selection]:
        """Run the blocks from the first reducer on, each reducer after as many blocks as its key says.

        Args:
            tokens: (B, M, prefix+N, W), what `forward` gives when it stops at the first reducer.
            reducers: in ascending order; a reducer takes tokens (B, M, 1+N, W), the global first, and `present`, and
                returns the T tokens (B, M, T, W) that go on in the place of the N patches, and what it kept.
            present: (B, M) bool, the modalities that take part; None: all.

        Returns:
            Tokens (B, M, 1+T, C) after all blocks, and the first selection, the one among patches of the image.
        """
        selections = []
        stops = [*map(int, reducers), None]
        for reducer, start, stop in zip(reducers.values(), stops[:-1], stops[1:], strict=True):
            prefix, global_and_patches = self.split_prefix(tokens)
            reduced, selection = reducer(global_and_patches, present)
            selections.append(selection)
            tokens = torch.cat([prefix, reduced.to(prefix.dtype)], dim=2)
            tokens = self.run_blocks(tokens.flatten(0, 1), start=start, stop=stop).unflatten(0, tokens.shape[:2])
        return self.finalize(tokens.flatten(0, 1), num_modalities=tokens.shape[1]), selections[0]

    def embed(self, images: Tensor, camera: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn images into the tokens (B*M, prefix+N, W) that enter the first block, and the rotary embedding."""
        tokens = self.vit.patch_embed(images.flatten(0, 1))
        embedded = self.vit._pos_embed(tokens)
        tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
        if self.sie_embed is not None:
            # After the position embedding instead of before it: additions commute.
            sie = self.sie_coe * self.sie_embed[camera].repeat_interleave(images.shape[1], dim=0)  # (B*M, W)
            if self.is_clip:
                tokens = torch.cat([tokens[:, :1] + sie.unsqueeze(1), tokens[:, 1:]], dim=1)
            else:
                tokens = tokens + sie.unsqueeze(1)
        return self.vit.norm_pre(tokens), rope

    def run_blocks(
        self, tokens: Tensor, *, start: int = 0, stop: int | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """Run the blocks from `start` to `stop`; with gradient checkpointing the backward pass recomputes them."""
        options = {} if rope is None else {"rope": rope}
        for block in self.vit.blocks[start:stop]:
            if self.grad_checkpointing and self.training:
                tokens = checkpoint(_run_block, block, tokens, use_reentrant=False, **options)
            else:
                tokens = _run_block(block, tokens, **options)
        return tokens

    def finalize(self, tokens: Tensor, *, num_modalities: int) -> Tensor:
        """Normalise and project the last block's tokens (B*M, prefix+N, W), without registers: (B, M, 1+N, C)."""
        tokens = self.vit.norm(tokens)
        if self.proj is not None:
            tokens = self.proj(tokens)
        return self.split_prefix(tokens.unflatten(0, (-1, num_modalities)))[1]

    def split_prefix(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Split tokens (B, M, prefix+N, D) into the prefix and (B, M, 1+N, D), one global, then patches.

        The global is the class token; a model without one has the mean of its patches in its place.
        """
        prefix, patches = tokens[:, :, : self.num_prefix_tokens], tokens[:, :, self.num_prefix_tokens :]
        if self.has_class_token and self.num_prefix_tokens == 1:
            return prefix, tokens
        global_ = prefix[:, :, :1] if self.has_class_token else patches.mean(dim=2, keepdim=True)
        return prefix, torch.cat([global_, patches], dim=2)

    def layer_of(self, name: str) -> int:
        """Return the layer of the parameter `name`: 0 for embeddings, 1 to D for blocks, D + 1 for what follows."""
        if name.startswith("vit.blocks."):
            return int(name.split(".")[2]) + 1
        after = name.startswith(("vit.norm.", "vit.fc_norm.", "proj."))
        return self.num_blocks + 1 if after else 0

    def freeze(self, num_layers: int) -> None:
        """Freeze the layers below `num_layers` (see `layer_of`), but not the camera embedding, which is new."""
        for name, parameter in self.named_parameters():
            if name != "sie_embed" and self.layer_of(name) < num_layers:
                parameter.requires_grad_(False)

    def check_cameras(self, cameras: Iterable[int]) -> None:
        """Make sure, before any step, that the camera embedding knows every one of `cameras`.

        Raises:
            UserError: it does not.
        """
        if self.sie_embed is None:
            return
        unknown = sorted({camera for camera in cameras if not 0 <= camera < len(self.sie_embed)})
        if unknown:
            raise UserError(
                f"The data has camera {', '.join(str(camera + 1) for camera in unknown)} (counted from 1), which the "
                f"camera embedding never saw: it was trained on cameras 1 to {len(self.sie_embed)}. Train and evaluate "
                "with MODEL.SIE_CAMERA: False, or leave the images of that camera out."
            )


def _run_block(block: nn.Module, tokens: Tensor, **options: Tensor) -> Tensor:
    with attention_precision(tokens):
        return block(tokens, **options)


def _create_vit(
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


def _set_stride(
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
