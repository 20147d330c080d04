"""The interface of a branch, which turns the tokens into one or more features, each with a head of its own.

Shapes: B batch, M modality, L = 1 + N tokens (global first), C width, D width of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from modeling.selection import UNKNOWN, PatchSelection, Selection, TokenInfo


@dataclass(frozen=True, slots=True)
class Feature:
    """What a branch gives to one head."""

    value: Tensor
    """(B, D), 0 in the parts that are absent."""
    present: Tensor | None = None
    """(B, P) bool: which of the P equal parts of the feature come from modalities that are present; None: all do."""
    selection: Selection | None = None
    """What was kept of the patches to make it, if it was made of a selection."""


class Branch(nn.Module):
    """The interface of a branch; `modeling.branches.BRANCHES` lists them by name.

    Args:
        head_dims: width of each feature by the name of its head, which begins with the name of the branch.
        selection: the patch selection in this branch, if it has one.
    """

    switch: str | None = None
    """The key that adds the branch; None: every model has it."""

    def __init__(self, head_dims: dict[str, int], *, selection: PatchSelection | None = None) -> None:
        super().__init__()
        self.head_dims = head_dims
        self.selection = selection

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> dict[str, Feature]:
        """Turn tokens (B, M, L, C) into a feature for each head; present (B, M) bool, None: all modalities are.

        `info` is what is known of the N tokens beside their values. An absent modality takes no part in any feature.
        """
        raise NotImplementedError


def zero_absent(parts: Tensor, present: Tensor | None) -> Tensor:
    """Set the parts (B, P, C) of a feature that are not `present` (B, P) bool to 0; None: all are."""
    return parts if present is None else parts.masked_fill(~present.unsqueeze(-1), 0.0)
