"""The interface of an aggregation."""

from __future__ import annotations

from torch import Tensor, nn

from modeling.selection.types import KeptInfo


class Aggregation(nn.Module):
    """What becomes of the kept patches of one modality; `AGGREGATIONS` lists the choices by name.

    Args:
        embed_dim: width C of the tokens.
        num_tokens: T, tokens that come out, as `count` gives it.
    """

    uses_mask = False
    """It accepts all patches, with the decision D as their mask."""
    tracks_sizes = False
    """The blocks after it have to know how many patches each of its tokens stands for."""
    records: tuple[str, ...] = ()
    """What the backbone has to record for it: names in `modeling.backbone.records.RECORDS`."""

    def __init__(self, embed_dim: int, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens

    @staticmethod
    def count(num_patches: int, sparse_ratio: float, aggr_ratio: float) -> int:
        """Return T for N patches of which the share `sparse_ratio` is kept."""
        raise NotImplementedError

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, kept: KeptInfo | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Turn the kept tokens (B, S, C), best first, into the new tokens (B, T, C).

        Args:
            tokens: the kept tokens.
            mask: (B, S), the decision D, where `tokens` are all and only those with 1 are kept; None: all are kept.
            kept: what is known of the kept tokens; None unless the aggregation tracks sizes.

        Returns:
            The new tokens, and the weights (B, T, S) that made them of the kept ones, or None where they are the same.
        """
        raise NotImplementedError
