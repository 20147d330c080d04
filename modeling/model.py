"""The composed model: backbone, branches and heads; one forward and one output type for training and evaluation.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width, D width of a branch's feature, K identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data.sample import MODALITIES
from modeling.branches.atmoe import ATMoE
from modeling.branches.hdm import HDM, SUBSETS, present_subsets
from modeling.branches.pife import PIFE
from modeling.heads import BNNeckHead
from modeling.selection.early import EarlySDTPS
from modeling.selection.sdtps import SDTPS, Selection

BRANCHES = ("ori", "moe", "sdtps")


@dataclass(frozen=True, slots=True)
class ReIDOutput:
    """What the model makes of a batch, in either mode."""

    embedding: Tensor
    """(B, E), what retrieval compares: the descriptor that TEST.FEAT names."""
    features: dict[str, Tensor]
    """(B, D) by head, before the neck: for the triplet loss."""
    logits: dict[str, Tensor]
    """(B, K) by head: for the identity loss."""
    counted: dict[str, Tensor]
    """(B,) bool by head, the samples that its losses count; a head that is not named counts all."""
    descriptors: dict[str, Tensor]
    """(B, D) by descriptor, one per branch and 'all' (the branches concatenated), before or after the neck."""
    selection: Selection | None
    """What SDTPS kept of the patches; None without it."""


def zero_absent(parts: Tensor, there: Tensor | None) -> Tensor:
    """Parts (B, P, C) of a feature, 0 where they are not `there` (B, P) bool; None: all are."""
    return parts if there is None else parts.masked_fill(~there.unsqueeze(-1), 0.0)


class ReIDModel(nn.Module):
    """Tri-modal ReID: tokens from one shared backbone, branches over them, a BNNeck head on each.

    Args:
        backbone: gives tokens (B, M, 1+N, C) and has `embed_dim`.
        num_classes: K, identities of the training set.
        direct: the ori branch concatenates the globals under one head ('ori'); False gives each modality its own.
        pife: makes the globals of all branches from globals and patches.
        hdm: adds the branch 'moe', its seven features concatenated.
        atmoe: what the branch 'moe' makes of those features instead.
        sdtps: adds the branch 'sdtps'; selects behind the backbone, or inside it (`EarlySDTPS`), then for all branches.
        drop_missing: an absent modality takes no part (MODEL.MISSING 'drop'); False: it is an empty image.
        feat: descriptor that becomes the embedding: a branch, 'all' (the only branch where there is one), or 'auto'
            (sdtps where there is one, else all).
        neck_feat: 'before' or 'after' the neck, for the descriptors.
        accumulate: in training the backbone takes the batch in so many parts, one after the other.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        num_classes: int,
        direct: bool = True,
        pife: PIFE | None = None,
        hdm: HDM | None = None,
        atmoe: ATMoE | None = None,
        sdtps: SDTPS | EarlySDTPS | None = None,
        drop_missing: bool = False,
        feat: str = "auto",
        neck_feat: str = "before",
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.accumulate = accumulate
        self.backbone = backbone
        self.direct = direct
        self.pife = pife
        self.hdm = hdm
        self.atmoe = atmoe
        self.sdtps = sdtps
        self.drop_missing = drop_missing
        self.after_neck = neck_feat == "after"

        width = backbone.embed_dim
        joint = len(MODALITIES) * width
        head_dims = {"ori": joint} if direct else {f"ori_{name}": width for name in MODALITIES}
        if hdm is not None:
            head_dims["moe"] = len(SUBSETS) * width
        if sdtps is not None:
            head_dims["sdtps"] = joint
        branches = [branch for branch in BRANCHES if branch == "ori" or branch in head_dims]
        self.descriptor_names = tuple(branches) if len(branches) == 1 else (*branches, "all")
        own = "sdtps" if sdtps is not None else self.descriptor_names[-1]
        self.feat = {"auto": own, "all": self.descriptor_names[-1]}.get(feat, feat)
        self.heads = nn.ModuleDict({name: BNNeckHead(dim, num_classes) for name, dim in head_dims.items()})

    def forward(self, images: Tensor, camera: Tensor, present: Tensor | None = None) -> ReIDOutput:
        """Images (B, M, 3, H, W) normalised, camera (B,) int64, present (B, M) bool; None: all modalities are there."""
        if present is not None and not self.drop_missing:
            images = images.masked_fill(~present[:, :, None, None, None], 0.0)
        return self.decode(self.encode(images, camera), present)

    def encode(self, images: Tensor, camera: Tensor) -> Tensor:
        """What the modalities do not yet share, in one pass: tokens (B, M, L, C), or those of an early selection."""
        if self.accumulate == 1 or not self.training:
            return self._run_backbone(images, camera)
        return self._encode_in_parts(images, camera)

    def _run_backbone(self, images: Tensor, camera: Tensor) -> Tensor:
        if isinstance(self.sdtps, EarlySDTPS):
            return self.backbone.begin(images, camera, num_blocks=self.sdtps.first_block)
        return self.backbone(images, camera)

    @torch.compiler.disable(recursive=False)  # the backbone is compiled, the order of the parts is not to be changed
    def _encode_in_parts(self, images: Tensor, camera: Tensor) -> Tensor:
        """The same, holding the activations of one part of the batch at a time: gradient caching (arXiv:2101.06983).

        Branches, heads and losses see the whole batch. In the backward pass each part runs again, with the random
        state that it had, and is fed the gradient of its tokens; the part that ran last goes first.
        """
        tokens = []
        for part in zip(images.chunk(self.accumulate), camera.chunk(self.accumulate), strict=True):
            tokens.append(checkpoint(self._run_backbone, *part, use_reentrant=False))
            torch.clear_autocast_cache()  # or the parts' gradients would be summed in the weights' autocast type
        return torch.cat(tokens)

    def decode(self, tokens: Tensor, present: Tensor | None = None) -> ReIDOutput:
        """Branches and heads over what `encode` gives; present (B, M) bool is for a model that drops the missing."""
        if not self.drop_missing:
            present = None
        selection, selected = None, None
        if isinstance(self.sdtps, EarlySDTPS):
            tokens, selection = self.sdtps(self.backbone, tokens, present)
            selected = tokens[:, :, 1:]
        if self.pife is not None:
            tokens = torch.cat([self.pife(tokens).unsqueeze(2), tokens[:, :, 1:]], dim=2)
        if isinstance(self.sdtps, SDTPS):
            selected, selection = self.sdtps(tokens, present)  # (B, M, T+1, C)

        features = self._ori(zero_absent(tokens[:, :, 0], present))
        if self.hdm is not None:
            features["moe"] = self._moe(tokens, present)
        if selected is not None:
            features["sdtps"] = zero_absent(selected.mean(dim=2), present).flatten(1)

        there = {} if present is None else self._parts_there(present)
        necked, logits = {}, {}
        for name, head in self.heads.items():
            necked[name], logits[name] = head(features[name], there.get(name))
        counted = {name: parts[:, 0] for name, parts in there.items() if parts.shape[1] == 1}
        descriptors = self._descriptors(necked if self.after_neck else features)
        return ReIDOutput(descriptors[self.feat], features, logits, counted, descriptors, selection)

    def _ori(self, globals_: Tensor) -> dict[str, Tensor]:
        """The features of the ori branch by head, from the globals (B, M, C)."""
        if self.direct:
            return {"ori": globals_.flatten(1)}
        return {f"ori_{name}": globals_[:, m] for m, name in enumerate(MODALITIES)}

    def _moe(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        """The feature (B, 7C) of the moe branch."""
        features = self.hdm(tokens, present)  # (B, 7, C)
        if self.atmoe is None:
            return features.flatten(1)
        return self.atmoe(features, None if present is None else present_subsets(present))

    def _parts_there(self, present: Tensor) -> dict[str, Tensor]:
        """Of each head's feature, which equal parts (B, P) bool are of modalities that are present."""
        there = {f"ori_{name}": present[:, m : m + 1] for m, name in enumerate(MODALITIES)}
        there |= {"ori": present, "sdtps": present}
        subsets = present_subsets(present)
        there["moe"] = subsets if self.atmoe is None else subsets.repeat(1, self.atmoe.gate.num_heads)
        return {name: there[name] for name in self.heads}

    def _descriptors(self, by_head: dict[str, Tensor]) -> dict[str, Tensor]:
        """What can be retrieved with: each branch, and all of them concatenated where there are several."""
        ori = torch.cat([feature for name, feature in by_head.items() if name.startswith("ori")], dim=1)
        descriptors = {"ori": ori} | {name: f for name, f in by_head.items() if not name.startswith("ori")}
        if "all" in self.descriptor_names:
            descriptors["all"] = torch.cat(list(descriptors.values()), dim=1)
        return descriptors
