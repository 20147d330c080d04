"""The shared backbone: a timm vision transformer over the stacked modalities, with camera embedding and any stride.

Shapes: B batch, M modality, L = 1 + N tokens (global, then patches), W width inside, C width of the output tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modeling.backbone.architectures import ARCHITECTURES, Architecture, create_vit, set_stride
from modeling.backbone.attention import attention_precision
from modeling.backbone.records import RECORDS, Recorder
from modeling.selection import UNKNOWN, PatchSelection, Selection, TokenInfo
from utils.errors import UserError

SIE_STD = 0.02


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
        self.vit = create_vit(name, architecture, img_size, drop_path_rate)
        self.width = width = self.vit.embed_dim
        self.has_rope = getattr(self.vit, "rope", None) is not None
        self.num_prefix_tokens = self.vit.num_prefix_tokens
        self.has_class_token = self.vit.cls_token is not None
        self.grid = set_stride(self.vit, name, img_size, stride)
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

    def forward(
        self, images: Tensor, camera: Tensor, *, stop: int | None = None, recorder: Recorder | None = None
    ) -> Tensor:
        """Images (B, M, 3, H, W) and camera (B,) int64 to tokens (B, M, 1+N, C), the global first.

        With `stop`, the tokens (B, M, prefix+N, W) after that many blocks come out, from which `resume` goes on.
        `recorder` looks at what enters the blocks.
        """
        tokens, rope = self.embed(images, camera)
        assert stop is None or rope is None, "without a learned position embedding the tokens cannot leave their grid"
        tokens = self.run_blocks(tokens, stop=stop, rope=rope, recorder=recorder)
        if stop is not None:
            return tokens.unflatten(0, (-1, images.shape[1]))
        return self.finalize(tokens, num_modalities=images.shape[1])

    def resume(
        self,
        tokens: Tensor,
        reducers: Mapping[str, PatchSelection],
        present: Tensor | None = None,
        info: TokenInfo = UNKNOWN,
    ) -> tuple[Tensor, Selection, TokenInfo]:
        """Run the blocks from the first reducer on, each reducer after as many blocks as its key says.

        Args:
            tokens: (B, M, prefix+N, W), what `forward` gives when it stops at the first reducer.
            reducers: in ascending order; a reducer takes tokens (B, M, 1+N, W), the global first, `present`, and what
                is known of the patches, and returns the T tokens (B, M, T, W) that go on in the place of the N patches.
            present: (B, M) bool, the modalities that take part; None: all.
            info: what is known of the patches.

        Returns:
            Tokens (B, M, 1+T, C) after all blocks, the first selection, the one among patches of the image, and what is
            known of the T tokens.
        """
        selections, shape = [], tokens.shape[:2]
        stops = [*map(int, reducers), None]
        following = [*list(reducers.values())[1:], None]
        for reducer, after, start, stop in zip(reducers.values(), following, stops[:-1], stops[1:], strict=True):
            prefix, global_and_patches = self.split_prefix(tokens)
            reduced, selection = reducer(global_and_patches, present, info)
            selections.append(selection)
            tokens = torch.cat([prefix, reduced.to(prefix.dtype)], dim=2).flatten(0, 1)
            recorder = self.recorder(after.records if after else ())
            bias = self.size_bias(selection.sizes)
            tokens = self.run_blocks(tokens, start=start, stop=stop, bias=bias, recorder=recorder).unflatten(0, shape)
            info = TokenInfo(
                index=info.index, recorded=recorder.read(shape[1]) if recorder else {}, sizes=selection.sizes
            )
        return self.finalize(tokens.flatten(0, 1), num_modalities=shape[1]), selections[0], info

    def recorder(self, names: Iterable[str]) -> Recorder | None:
        """Return what records `names` while blocks run (see `modeling.backbone.records`); None if there are none."""
        return Recorder(names, self.num_prefix_tokens) if names else None

    def size_bias(self, sizes: Tensor | None) -> Tensor | None:
        """Return the logarithm of the tokens' sizes (B, M, T) as a bias of attention (B*M, 1, 1, prefix+T).

        A token that stands for s patches then gets the attention of s patches (ToMe, Bolya et al., ICLR 2023, sec. 3).
        """
        if sizes is None:
            return None
        return F.pad(sizes.log(), (self.num_prefix_tokens, 0)).flatten(0, 1)[:, None, None]

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
        self,
        tokens: Tensor,
        *,
        start: int = 0,
        stop: int | None = None,
        rope: Tensor | None = None,
        bias: Tensor | None = None,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Run the blocks from `start` to `stop`; with gradient checkpointing the backward pass recomputes them.

        Args:
            tokens: (B*M, prefix+N, W).
            start, stop: numbers of blocks, counted from 0; None: to the last one.
            rope: the rotary embedding of a backbone that has one.
            bias: (B*M, 1, 1, prefix+N), added to the logits of attention.
            recorder: looks at what enters the blocks.
        """
        options = {name: value for name, value in (("rope", rope), ("attn_mask", bias)) if value is not None}
        blocks = self.vit.blocks[start:stop]
        for number, block in enumerate(blocks, start=1):
            if recorder is not None:
                recorder.look(block, tokens, bias=bias, is_last=number == len(blocks))
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

    def check_records(self, names: Iterable[str], reader: str) -> None:
        """Make sure, before any step, that the blocks can be recorded; `reader` begins the error.

        Raises:
            UserError: they are of another kind, or a record shows where the class token looks, and there is none.
        """
        plain = all(type(block) is Block and type(block.attn) is Attention for block in self.vit.blocks)
        if names and not plain:
            raise UserError(
                f"{reader} reads the attention within the blocks of the backbone, but those of {self.name} do not show "
                "it. Take another one, or a timm VisionTransformer with plain blocks such as ViT-B-16."
            )
        if not self.has_class_token and any(RECORDS[name].needs_class_token for name in names):
            raise UserError(
                f"{reader} reads what the class token attends to, but {self.name} has no class token. Take another "
                "one, or a backbone with a class token such as ViT-B-16."
            )

    def pool_patches(self, mask: Tensor) -> Tensor:
        """Average masks (B, M, H, W) uint8 over the pixels of each patch: (B, M, N) float32, 255 becoming 1."""
        embedding = self.vit.patch_embed
        shares = F.avg_pool2d(mask.float() / 255, embedding.patch_size, embedding.proj.stride)
        return shares.flatten(2)

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
