"""The interface of a score."""

from __future__ import annotations

from torch import Tensor, nn

from modeling.selection.types import UNKNOWN, Scores, TokenInfo


class Score(nn.Module):
    """How much each patch of each modality is worth keeping; `SCORES` lists the choices by name.

    `PatchSelection` builds a score with all the keywords that it has, of which the score takes those that it needs.
    """

    needs: frozenset[str] = frozenset()
    """Fields of `TokenInfo` without which it cannot score, and 'grid' where its tokens must be the patches of an image
    in their places."""
    has_head: bool = False
    """It gives `Scores.pooled`, and a head on that teaches it in training; only the first stage can have such a score,
    so that it also needs the 'grid'."""
    records: tuple[str, ...] = ()
    """What the backbone has to record for it: names in `modeling.backbone.records.RECORDS`."""

    def forward(self, tokens: Tensor, present: Tensor | None = None, info: TokenInfo = UNKNOWN) -> Scores:
        """Score the patches of tokens (B, M, 1+N, C), the global first.

        Args:
            tokens: those of all modalities.
            present: (B, M) bool, the modalities that are present; None: all.
            info: what is known of the N patches.
        """
        raise NotImplementedError
