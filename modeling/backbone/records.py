"""What the backbone records of its blocks for the scores and aggregations that ask for it, by name in RECORDS.

A record is computed from the tokens that enter a block, without gradient and in float32, because fused attention shows
nothing of what happens within it. That costs one projection of the tokens for keys, another for values or queries if
they are read, and the product of those that are.

Shapes: B batch times modalities, L = P + N tokens (P of them prefix, the class token first), N patches, H heads, W
width, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F

QUERY, KEY, VALUE = range(3)


class BlockView:
    """The attention of one block on the tokens that enter it.

    Args:
        block: a block of timm's VisionTransformer.
        tokens: (B, L, W).
        bias: (B, 1, 1, L), what the block adds to the logits of its attention; None: nothing.
    """

    def __init__(self, block: Block, tokens: Tensor, bias: Tensor | None) -> None:
        self.attention: Attention = block.attn
        self.tokens = block.norm1(tokens)
        self.bias = bias

    def project(self, part: int, tokens: Tensor) -> Tensor:
        """Project `tokens` (B, K, W) to queries, keys or values (B, H, K, d)."""
        qkv = self.attention.qkv
        weight, bias = qkv.weight.chunk(3)[part], None if qkv.bias is None else qkv.bias.chunk(3)[part]
        return F.linear(tokens, weight, bias).unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2)

    def keys(self) -> Tensor:
        """Return the keys (B, H, L, d)."""
        return self.attention.k_norm(self.project(KEY, self.tokens))

    def values(self) -> Tensor:
        """Return the values (B, H, L, d)."""
        return self.project(VALUE, self.tokens)

    def weights(self, *, class_only: bool) -> Tensor:
        """Return how much each token attends to each: (B, H, L, L), or only the class token: (B, H, 1, L)."""
        tokens = self.tokens[:, :1] if class_only else self.tokens
        queries = self.attention.q_norm(self.project(QUERY, tokens))
        logits = queries @ self.keys().transpose(-2, -1) * self.attention.scale
        return (logits if self.bias is None else logits + self.bias).softmax(dim=-1)


@dataclass(frozen=True)
class Record:
    """How a record is made."""

    update: Callable[[BlockView, Tensor | None], Tensor]
    """Takes a block and what the call for the block before returned, None for the first."""
    read: Callable[[Tensor, int], Tensor]
    """Takes what the last call returned and the number of prefix tokens P."""
    every_block: bool = False
    """Look at every block from the first on, not only at the last one before the selection."""
    needs_class_token: bool = True
    """It shows what the class token attends to."""


def _attention(block: BlockView, _: Tensor | None) -> Tensor:
    return block.weights(class_only=True)


def _value_attention(block: BlockView, _: Tensor | None) -> Tensor:
    return block.weights(class_only=True) * block.values().norm(dim=-1).unsqueeze(2)


def _rollout(block: BlockView, former: Tensor | None) -> Tensor:
    attention = block.weights(class_only=False).mean(dim=1, keepdim=True)
    attention = (attention + torch.eye(attention.shape[-1], device=attention.device)) / 2
    return attention if former is None else attention @ former


def _head_rollout(block: BlockView, former: Tensor | None) -> Tensor:
    attention = block.weights(class_only=False)
    return attention if former is None else attention @ former


def _keys(block: BlockView, _: Tensor | None) -> Tensor:
    return block.keys().mean(dim=1)


def _class_row(weights: Tensor, num_prefix: int) -> Tensor:
    return weights[:, :, 0, num_prefix:]


RECORDS: dict[str, Record] = {
    # (B, H, N): the class token's row of softmax(Q K^T / sqrt d) in the last block.
    "attention": Record(_attention, _class_row),
    # (B, H, N): the same times the norm of the values (ATS, Fayyaz et al., ECCV 2022, eq. 3, before it is normalised).
    "value_attention": Record(_value_attention, _class_row),
    # (B, 1, N): the class token's row of the product of (A + I) / 2 over the blocks, the last one first, where A is the
    # mean over the heads (attention rollout, Abnar and Zuidema, ACL 2020, eq. 1-2).
    "rollout": Record(_rollout, _class_row, every_block=True),
    # (B, H, N): the class token's row of the product of the attention of each head over the blocks (EDITOR, Zhang et
    # al., CVPR 2024).
    "head_rollout": Record(_head_rollout, _class_row, every_block=True),
    # (B, N, d): the mean of the keys over the heads in the last block (ToMe, Bolya et al., ICLR 2023).
    "keys": Record(_keys, lambda keys, num_prefix: keys[:, num_prefix:], needs_class_token=False),
}


class Recorder:
    """Make the records of `names` while the backbone runs its blocks.

    Args:
        names: keys of RECORDS.
        num_prefix: P.
    """

    def __init__(self, names: Iterable[str], num_prefix: int) -> None:
        self.names = tuple(names)
        self.num_prefix = num_prefix
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def look(self, block: nn.Module, tokens: Tensor, *, bias: Tensor | None, is_last: bool) -> None:
        """Look at the tokens (B, L, W) that enter `block`, the last one or not; `bias` as in `BlockView`."""
        wanted = [name for name in self.names if is_last or RECORDS[name].every_block]
        if not wanted:
            return
        with torch.autocast(tokens.device.type, enabled=False):
            view = BlockView(block, tokens.float(), bias)
            for name in wanted:
                self._values[name] = RECORDS[name].update(view, self._values.get(name))

    def read(self, num_modalities: int) -> Mapping[str, Tensor]:
        """Return the records (B / M, M, ...) by name."""
        records = {name: RECORDS[name].read(value, self.num_prefix) for name, value in self._values.items()}
        return {name: record.unflatten(0, (-1, num_modalities)) for name, record in records.items()}
