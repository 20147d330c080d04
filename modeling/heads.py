"""BNNeck and classifier, the head on every feature (Luo et al., "Bag of Tricks", CVPRW 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from modeling.layers import BatchNorm


class BNNeckHead(nn.Module):
    """Batch normalisation with its bias frozen at 0, then a bias-free classifier initialised with std 0.001."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.neck = BatchNorm(feature_dim)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(feature_dim, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Feature (B, D) to the normalised feature (B, D) and the logits (B, K).

        The equal parts of the feature that are not `present` (B, P) bool stay 0 and enter no statistic.
        """
        if present is not None:
            present = present.repeat_interleave(self.feature_dim // present.shape[1], dim=1)
        necked = self.neck(feature, present)
        return necked, self.classifier(necked)
