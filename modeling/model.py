"""The composed model: backbone, branches and heads; one forward and one output type for training and evaluation.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width, D width of a branch's feature, K identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data.records import MODALITIES
from modeling.heads import BNNeckHead
from modeling.sdtps import SDTPS, Selection


@dataclass(frozen=True, slots=True)
class ReIDOutput:
    """What the model makes of a batch, in either mode."""

    embedding: Tensor
    """(B, E), what retrieval compares: the pattern that TEST.FEAT names."""
    features: dict[str, Tensor]
    """(B, D) by head, before the neck: for the triplet loss."""
    logits: dict[str, Tensor]
    """(B, K) by head: for the identity loss."""
    patterns: dict[str, Tensor]
    """(B, D) by pattern, one per branch and 'all' (the branches concatenated), before or after the neck."""
    selection: Selection | None
    """What SDTPS kept; None without it."""


class ReIDModel(nn.Module):
    """Tri-modal ReID: tokens from one shared backbone, branches over them, a BNNeck head on each.

    Args:
        backbone: gives tokens (B, M, 1+N, C) and has `embed_dim`.
        num_classes: K, identities of the training set.
        direct: the ori branch concatenates the globals under one head ('ori'); False gives each modality its own.
        sdtps: adds the branch 'sdtps'.
        feat: pattern that becomes the embedding: a branch, 'all' (the only branch where there is one), or 'auto'
            (sdtps where there is one, else all).
        neck_feat: 'before' or 'after' the neck, for the patterns.
        accumulate: in training the backbone takes the batch in so many parts, one after the other.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        num_classes: int,
        direct: bool = True,
        sdtps: SDTPS | None = None,
        feat: str = "auto",
        neck_feat: str = "before",
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.accumulate = accumulate
        self.backbone = backbone
        self.direct = direct
        self.sdtps = sdtps
        self.after_neck = neck_feat == "after"

        width = backbone.embed_dim
        joint = len(MODALITIES) * width
        head_dims = {"ori": joint} if direct else {f"ori_{name}": width for name in MODALITIES}
        if sdtps is not None:
            head_dims["sdtps"] = joint
        branches = ["ori", *(name for name in head_dims if not name.startswith("ori"))]
        self.pattern_names = tuple(branches) if len(branches) == 1 else (*branches, "all")
        own = "sdtps" if sdtps is not None else self.pattern_names[-1]
        self.feat = {"auto": own, "all": self.pattern_names[-1]}.get(feat, feat)
        self.heads = nn.ModuleDict({name: BNNeckHead(dim, num_classes) for name, dim in head_dims.items()})

    def forward(self, images: Tensor, camera: Tensor, present: Tensor | None = None) -> ReIDOutput:
        """Images (B, M, 3, H, W) normalised, camera (B,) int64, present (B, M) bool; absent = an empty image."""
        if present is not None:
            images = images.masked_fill(~present[:, :, None, None, None], 0.0)
        return self.decode(self.encode(images, camera))

    def encode(self, images: Tensor, camera: Tensor) -> Tensor:
        """The backbone's tokens (B, M, L, C), the modalities in one pass."""
        if self.accumulate == 1 or not self.training:
            return self.backbone(images, camera)
        return self._encode_in_parts(images, camera)

    @torch.compiler.disable(recursive=False)  # the backbone is compiled, the order of the parts is not to be changed
    def _encode_in_parts(self, images: Tensor, camera: Tensor) -> Tensor:
        """The same, holding the activations of one part of the batch at a time: gradient caching (arXiv:2101.06983).

        Branches, heads and losses see the whole batch. In the backward pass each part runs again, with the random
        state that it had, and is fed the gradient of its tokens; the part that ran last goes first.
        """
        tokens = []
        for part in zip(images.chunk(self.accumulate), camera.chunk(self.accumulate), strict=True):
            tokens.append(checkpoint(self.backbone, *part, use_reentrant=False))
            torch.clear_autocast_cache()  # or the parts' gradients would be summed in the weights' autocast type
        return torch.cat(tokens)

    def decode(self, tokens: Tensor) -> ReIDOutput:
        """Branches and heads over the tokens (B, M, L, C)."""
        globals_ = tokens[:, :, 0]  # (B, M, C)
        if self.direct:
            features = {"ori": globals_.flatten(1)}
        else:
            features = {f"ori_{name}": globals_[:, m] for m, name in enumerate(MODALITIES)}
        selection = None
        if self.sdtps is not None:
            selected, selection = self.sdtps(tokens)  # (B, M, T+1, C)
            features["sdtps"] = selected.mean(dim=2).flatten(1)

        necked, logits = {}, {}
        for name, head in self.heads.items():
            necked[name], logits[name] = head(features[name])
        patterns = self._patterns(necked if self.after_neck else features)
        return ReIDOutput(patterns[self.feat], features, logits, patterns, selection)

    def _patterns(self, by_head: dict[str, Tensor]) -> dict[str, Tensor]:
        """What can be retrieved with: each branch, and all of them concatenated where there are several."""
        ori = torch.cat([feature for name, feature in by_head.items() if name.startswith("ori")], dim=1)
        patterns = {"ori": ori} | {name: f for name, f in by_head.items() if not name.startswith("ori")}
        if "all" in self.pattern_names:
            patterns["all"] = torch.cat(list(patterns.values()), dim=1)
        return patterns
