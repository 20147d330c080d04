"""SDTPS inside the backbone: after some of its blocks the patches are selected, and the rest runs on what is left.

Selection after the last block saves nothing. Here 128 patches become 25 + 1 tokens after block k, and the blocks behind
it run on these and the class token; only this makes the model cheaper (MODEL.SDTPS_BLOCK).

Shapes: B batch, M modality, P prefix tokens (class and registers), N patches, T tokens left, W width inside, C outside.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modeling.backbone.vit import ViTBackbone
from modeling.selection.sdtps import SDTPS, Selection


class EarlySDTPS(nn.Module):
    """An SDTPS after each of some blocks, each modality scored with the globals of all at that depth.

    Args:
        stages: number of blocks that come before, ascending, to the SDTPS that follows them.
    """

    def __init__(self, stages: Mapping[int, SDTPS]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict({str(num_blocks): sdtps for num_blocks, sdtps in stages.items()})

    @property
    def first_block(self) -> int:
        """Blocks before the first selection."""
        return min(map(int, self.stages))

    def forward(self, backbone: ViTBackbone, tokens: Tensor, present: Tensor | None = None) -> tuple[Tensor, Selection]:
        """Tokens (B, M, P+N, W) after `first_block` blocks to (B, M, 1+T, C) after all, and the first selection.

        The first selection is the one among patches of the image; what later ones select among are aggregates.
        """
        selections = []
        done = self.first_block
        for num_blocks, sdtps in self.stages.items():
            if int(num_blocks) > done:
                tokens = backbone.run_blocks(tokens.flatten(0, 1), start=done, stop=int(num_blocks))
                tokens = tokens.unflatten(0, (-1, len(sdtps.modalities)))
                done = int(num_blocks)
            prefix, global_and_patches = backbone.split_prefix(tokens)
            selected, selection = sdtps(global_and_patches, present)  # (B, M, T, W)
            tokens = torch.cat([prefix, selected.to(prefix.dtype)], dim=2)
            selections.append(selection)
        return backbone.finish(tokens, num_blocks=done), selections[0]
