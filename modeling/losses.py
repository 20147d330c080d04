"""Identity and triplet losses, and their sum over the heads as a named dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def batch_hard_triplet(
    feature: Tensor, pid: Tensor, *, margin: float | None = None, counted: Tensor | None = None
) -> Tensor:
    """Triplet loss over each anchor's hardest positive and negative (Hermans et al., arXiv:1703.07737).

    Args:
        feature: (B, D); distances are Euclidean, in float32.
        pid: (B,) identities; an anchor without a negative in the batch contributes no term.
        margin: hinge margin; None selects the soft margin log(1 + exp(d_ap - d_an)).
        counted: (B,) bool, the samples that take part; None: all.
    """
    with torch.autocast(feature.device.type, enabled=False):
        feature = feature.float()
        squared = feature.pow(2).sum(dim=1)
        squared = squared.unsqueeze(1) + squared.unsqueeze(0) - 2 * feature @ feature.T
        distance = squared.clamp_min(1e-12).sqrt()  # the gradient of sqrt at 0 is inf
        positive = pid.unsqueeze(1) == pid.unsqueeze(0)
        negative = ~positive
        if counted is not None:
            positive, negative = positive & counted, negative & counted
        hardest_positive = distance.masked_fill(~positive, 0.0).amax(dim=1)
        hardest_negative = distance.masked_fill(~negative, torch.inf).amin(dim=1)
        gap = hardest_positive - hardest_negative  # -inf without a negative: loss 0
        return _mean(F.softplus(gap) if margin is None else F.relu(gap + margin), counted)


def _mean(losses: Tensor, counted: Tensor | None) -> Tensor:
    """The mean of losses (B,) over the samples that count; 0 where none does."""
    return losses.mean() if counted is None else (losses * counted).sum() / counted.sum().clamp_min(1)


class ReIDLoss(nn.Module):
    """The losses of every head, already weighted: their sum is the training loss.

    Args:
        id_weight: of the cross-entropy.
        triplet_weight: of the batch-hard triplet; 0 leaves it out.
        label_smoothing: of the cross-entropy.
        margin: of the triplet; None is the soft margin.
        head_weights: a further factor by head; 1 where a head is not named.
    """

    def __init__(
        self,
        *,
        id_weight: float = 1.0,
        triplet_weight: float = 1.0,
        label_smoothing: float = 0.1,
        margin: float | None = 0.3,
        head_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.id_weight = id_weight
        self.triplet_weight = triplet_weight
        self.label_smoothing = label_smoothing
        self.margin = margin
        self.head_weights = dict(head_weights or {})

    def forward(
        self,
        features: Mapping[str, Tensor],
        logits: Mapping[str, Tensor],
        pid: Tensor,
        counted: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses by 'id/<head>' and 'triplet/<head>', from features (B, D) and logits (B, K) by head and pid (B,).

        `counted` holds the samples (B,) bool that count for a head; a head that it does not name counts all.
        """
        losses: dict[str, Tensor] = {}
        for head, head_logits in logits.items():
            weight = self.head_weights.get(head, 1.0)
            of_head = (counted or {}).get(head)
            if self.id_weight:
                # The plain mean where all count: fused, and equal to the bit whatever else a model can do.
                reduction = "mean" if of_head is None else "none"
                cross_entropy = F.cross_entropy(
                    head_logits.float(), pid, label_smoothing=self.label_smoothing, reduction=reduction
                )
                losses[f"id/{head}"] = weight * self.id_weight * _mean(cross_entropy, of_head)
            if self.triplet_weight:
                triplet = batch_hard_triplet(features[head], pid, margin=self.margin, counted=of_head)
                losses[f"triplet/{head}"] = weight * self.triplet_weight * triplet
        return losses
