"""The composed model: a backbone, a list of branches, and a head on each feature that they give.

There is one forward pass and one output type, for training and evaluation. The pass has two halves. `encode` runs the
backbone, in which no modality sees another, to its end or to the first reducer, a patch selection between two blocks.
`decode` does the rest. They are separate so that gradient caching can run `encode` again in parts of the batch, and so
that one `encode` serves every setting of absent modalities in the evaluation.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width, D width of a feature, E width of a descriptor,
K identities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

from data.sample import MODALITIES
from modeling.branches import Branch
from modeling.branches.base import zero_absent
from modeling.heads import BNNeckHead
from modeling.selection import UNKNOWN, PatchSelection, Selection, TokenInfo

ALL = "all"
"""The name of the descriptor that concatenates those of all branches."""
SCORE = "score"
"""The name of the head that teaches the score of a patch selection; no descriptor is made of it."""


class EncodedTokens(NamedTuple):
    """What `encode` hands to `decode`."""

    tokens: Tensor
    """(B, M, L, C), after the last block or that after which the first reducer selects."""
    records: Mapping[str, Tensor]
    """(B, M, ...) by name, what the first selection asked the backbone to record."""

    @staticmethod
    def join(parts: Sequence[EncodedTokens], *, dim: int = 0) -> EncodedTokens:
        """Join parts of a batch, or with `dim` 1 its modalities."""
        names = parts[0].records
        records = {name: torch.cat([part.records[name] for part in parts], dim=dim) for name in names}
        return EncodedTokens(torch.cat([part.tokens for part in parts], dim=dim), records)


@dataclass(frozen=True, slots=True)
class ReIDOutput:
    """What the model makes of a batch."""

    embedding: Tensor
    """(B, E), what retrieval compares: one of the descriptors."""
    features: dict[str, Tensor]
    """(B, D) by head, before the neck: for the triplet loss."""
    logits: dict[str, Tensor]
    """(B, K) by head: for the identity loss."""
    present: dict[str, Tensor]
    """(B,) bool by head, the samples that its losses count; a head that is not named counts all."""
    descriptors: dict[str, Tensor]
    """(B, E) by name: one for each branch, and `ALL` where there are several; before or after the neck."""
    selection: Selection | None
    """What was kept of the patches of the images; None without a patch selection."""


class ReIDModel(nn.Module):
    """Multi-modal ReID: tokens from one shared backbone, branches over them, a head on each feature.

    Args:
        backbone: gives tokens (B, M, L, C) and has `embed_dim`; see `modeling.backbone.vit`.
        branches: by name, in the order of `modeling.branches.BRANCHES`.
        num_classes: K, identities of the training set.
        transforms: tokens to tokens, in this order before all branches.
        reducers: patch selections inside the backbone, by the number of blocks before each, ascending.
        drop_absent: an absent modality takes no part (MODEL.MISSING 'drop'); False: it is an empty image.
        descriptor: the descriptor that becomes the embedding; `ALL` means the only one if there is one branch.
        after_neck: take the descriptors after the neck instead of before it.
        accumulate: in training the backbone takes the batch in at most this many parts, one after the other.
    """

    def __init__(
        self,
        backbone: nn.Module,
        branches: Mapping[str, Branch],
        *,
        num_classes: int,
        transforms: Mapping[str, nn.Module],
        reducers: Mapping[int, PatchSelection],
        drop_absent: bool,
        descriptor: str,
        after_neck: bool,
        accumulate: int,
    ) -> None:
        super().__init__()
        self.drop_absent = drop_absent
        self.after_neck = after_neck
        self.accumulate = accumulate
        # Checkpoints store the state of the optimiser in the order of the parameters: do not reorder these lines.
        self.backbone = backbone
        self.transforms = nn.ModuleDict(transforms)
        self.branches = nn.ModuleDict(branches)
        self.reducers = nn.ModuleDict({str(num_blocks): reducer for num_blocks, reducer in reducers.items()})
        head_dims = {name: dim for branch in branches.values() for name, dim in branch.head_dims.items()}
        if any(selection.score.has_head for selection in self.selections):
            head_dims[SCORE] = len(MODALITIES) * self.selections[0].embed_dim
        self.heads = nn.ModuleDict({name: BNNeckHead(dim, num_classes) for name, dim in head_dims.items()})

        self.first_stage = min(reducers, default=None)
        self.descriptor_names = (*branches,) if len(branches) == 1 else (*branches, ALL)
        self.descriptor = self.descriptor_names[-1] if descriptor == ALL else descriptor

    @property
    def selections(self) -> list[PatchSelection]:
        """The patch selections of the model; the first one selects among the patches of the images."""
        in_branches = [branch.selection for branch in self.branches.values() if branch.selection is not None]
        return [*self.reducers.values(), *in_branches]

    @property
    def needs(self) -> frozenset[str]:
        """What the scores of the model have to know beside the tokens: names of fields of `TokenInfo`, and 'grid'."""
        return frozenset().union(*(selection.score.needs for selection in self.selections))

    def start_epoch(self, epoch: int) -> None:
        """Prepare for the training epoch number `epoch`, counted from 0."""
        for selection in self.selections:
            selection.sparse.start_epoch(epoch)

    def describe(self, index: Tensor, mask: Tensor | None) -> TokenInfo:
        """Say of a batch what its pixels do not tell.

        Args:
            index: (B,) int64, positions in the list of samples.
            mask: (B, M, H, W) uint8, 255 on the object; None: it is not known.
        """
        return TokenInfo(index=index, coverage=None if mask is None else self.backbone.pool_patches(mask))

    def forward(
        self, images: Tensor, camera: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN
    ) -> ReIDOutput:
        """Images (B, M, 3, H, W), normalised and 0 where a modality is absent, and camera (B,) int64 to the output.

        `present` (B, M) bool tells which modalities are present; None: all. Only a model that drops absent modalities
        reads it. `info`, from `describe`, is read only by scores that need it.
        """
        return self.decode(self.encode(images, camera), present, info)

    def encode(self, images: Tensor, camera: Tensor) -> EncodedTokens:
        """Run the backbone to its end, or to the block after which the first reducer selects."""
        with record_function("backbone"):
            if self.accumulate == 1 or not self.training:
                return self._encode(images, camera)
            return self._encode_in_parts(images, camera)

    def _encode(self, images: Tensor, camera: Tensor) -> EncodedTokens:
        recorder = self.backbone.recorder(self.selections[0].records if self.selections else ())
        tokens = self.backbone(images, camera, stop=self.first_stage, recorder=recorder)
        return EncodedTokens(tokens, recorder.read(images.shape[1]) if recorder else {})

    @torch.compiler.disable(recursive=False)  # compile the backbone, but keep the order of the parts
    def _encode_in_parts(self, images: Tensor, camera: Tensor) -> EncodedTokens:
        """Encode with the activations of only one part of the batch in memory: gradient caching (arXiv:2101.06983).

        Branches, heads and losses see the whole batch. In the backward pass each part runs again, with the random state
        that it had, and is fed the gradient of its tokens; the part that ran last goes first.
        """
        parts = []
        for part in zip(images.chunk(self.accumulate), camera.chunk(self.accumulate), strict=True):
            parts.append(checkpoint(self._encode, *part, use_reentrant=False))
            torch.clear_autocast_cache()  # otherwise the parts' gradients would be summed in the autocast type
        return EncodedTokens.join(parts)

    def decode(self, encoded: EncodedTokens, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> ReIDOutput:
        """Run everything after `encode` on what it gave; `present` and `info` as in `forward`."""
        with record_function("branches and heads"):
            present = present if self.drop_absent else None
            tokens, info = encoded.tokens, replace(info, recorded=encoded.records)
            selection = None
            if self.reducers:
                tokens, selection, info = self.backbone.resume(tokens, self.reducers, present, info)
            for transform in self.transforms.values():
                tokens = transform(tokens)

            features, logits, samples, descriptors = {}, {}, {}, {}
            for branch_name, branch in self.branches.items():
                parts = []
                for name, feature in branch(tokens, present, info).items():
                    necked, logits[name] = self.heads[name](feature.value, feature.present)
                    features[name] = feature.value
                    parts.append(necked if self.after_neck else feature.value)
                    if feature.present is not None and feature.present.shape[1] == 1:
                        # Where its only part is absent there is no feature, and the losses leave the sample out.
                        samples[name] = feature.present[:, 0]
                    selection = selection or feature.selection
                descriptors[branch_name] = torch.cat(parts, dim=1)
            if ALL in self.descriptor_names:
                descriptors[ALL] = torch.cat(list(descriptors.values()), dim=1)
            if self.training and SCORE in self.heads:
                features[SCORE] = zero_absent(selection.pooled, present).flatten(1)
                _, logits[SCORE] = self.heads[SCORE](features[SCORE], present)
        return ReIDOutput(descriptors[self.descriptor], features, logits, samples, descriptors, selection)

    def encode_blank(self, images: Tensor) -> EncodedTokens:
        """Encode one empty image of the size of `images` for each camera, or one in all: (cameras or 1, 1, L, C)."""
        cameras = torch.arange(max(1, self.backbone.num_cameras), device=images.device)
        return self.encode(images.new_zeros(len(cameras), 1, *images.shape[2:]), cameras)

    @staticmethod
    def without(encoded: EncodedTokens, absent: Tensor, camera: Tensor, blank: EncodedTokens) -> EncodedTokens:
        """Replace what was encoded of the `absent` (M,) bool modalities by what an empty image gives.

        This is what `encode` would have given for images without these modalities; `blank` is from `encode_blank`.
        """

        def choose(values: Tensor, from_blank: Tensor) -> Tensor:
            from_blank = from_blank[camera] if len(from_blank) > 1 else from_blank  # (B or 1, 1, ...)
            return torch.where(absent.view(-1, *[1] * (values.ndim - 2)), from_blank, values)

        records = {name: choose(record, blank.records[name]) for name, record in encoded.records.items()}
        return EncodedTokens(choose(encoded.tokens, blank.tokens), records)
