"""Identity and triplet losses, and their weighted sum over the heads as a named dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.sample import Batch
from modeling.model import ReIDOutput

Term = Callable[[str, ReIDOutput, Batch], Tensor]
"""A loss of one head: its name, the model's output and the batch to a scalar, the mean over the samples that count."""


class IdentityLoss(nn.Module):
    """Cross-entropy of a head's logits with the identities.

    Args:
        label_smoothing: share of the target that is spread over all identities.
    """

    def __init__(self, *, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, head: str, output: ReIDOutput, batch: Batch) -> Tensor:
        """Return the loss of `head`."""
        logits, present = output.logits[head].float(), output.present.get(head)
        # The plain mean where all count: it is fused, and bit-equal whatever else a model can do.
        reduction = "mean" if present is None else "none"
        loss = F.cross_entropy(logits, batch.pid, label_smoothing=self.label_smoothing, reduction=reduction)
        return mean_over(loss, present)


class TripletLoss(nn.Module):
    """Batch-hard triplet loss of a head's feature before the neck.

    Args:
        margin: see `batch_hard_triplet`.
    """

    def __init__(self, *, margin: float | None) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, head: str, output: ReIDOutput, batch: Batch) -> Tensor:
        """Return the loss of `head`."""
        present = output.present.get(head)
        return batch_hard_triplet(output.features[head], batch.pid, margin=self.margin, present=present)


class ReIDLoss(nn.Module):
    """The losses of every head, already weighted: their sum is the training loss.

    Args:
        terms: weight and loss by name.
        head_weights: a further factor by head; 1 where a head is not named.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term]], *, head_weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = dict(terms)
        self.head_weights = dict(head_weights)

    def forward(self, output: ReIDOutput, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by '<name>/<head>'; `batch.pid` (B,) holds training labels 0..K-1."""
        return {
            f"{name}/{head}": self.head_weights.get(head, 1.0) * weight * term(head, output, batch)
            for head in output.logits
            for name, (weight, term) in self.terms.items()
        }


def batch_hard_triplet(feature: Tensor, pid: Tensor, *, margin: float | None, present: Tensor | None = None) -> Tensor:
    """Triplet loss over each anchor's hardest positive and negative (Hermans et al., arXiv:1703.07737).

    Args:
        feature: (B, D); distances are Euclidean, in float32.
        pid: (B,) identities; an anchor without a negative in the batch contributes no term.
        margin: hinge margin; None selects the soft margin log(1 + exp(d_ap - d_an)).
        present: (B,) bool, the samples that take part; None: all.
    """
    with torch.autocast(feature.device.type, enabled=False):
        feature = feature.float()
        squared = feature.pow(2).sum(dim=1)
        squared = squared.unsqueeze(1) + squared.unsqueeze(0) - 2 * feature @ feature.T
        distance = squared.clamp_min(1e-12).sqrt()  # the gradient of sqrt at 0 is inf
        positive = pid.unsqueeze(1) == pid.unsqueeze(0)
        negative = ~positive
        if present is not None:
            positive, negative = positive & present, negative & present
        hardest_positive = distance.masked_fill(~positive, 0.0).amax(dim=1)
        hardest_negative = distance.masked_fill(~negative, torch.inf).amin(dim=1)
        gap = hardest_positive - hardest_negative  # -inf without a negative: loss 0
        return mean_over(F.softplus(gap) if margin is None else F.relu(gap + margin), present)


def mean_over(losses: Tensor, present: Tensor | None) -> Tensor:
    """Average losses (B,), or a mean that was taken already, over the samples that are present; 0 where none is."""
    return losses.mean() if present is None else (losses * present).sum() / present.sum().clamp_min(1)
