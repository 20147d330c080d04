"""Scores: how much each patch of each modality is worth keeping. One class in one file each, found here by its name.

`PatchSelection` builds a score with the keywords that it has, of which the score takes those that it needs, and calls
it as `score(tokens, present)` with tokens (B, M, 1+N, C), the global first, and present (B, M) bool or None; it returns
`Scores`. Where `needs_grid` is True it scores positions, so its tokens must be the patches of an image in their order.
"""

from torch import nn

from modeling.selection.scores.centre import CentreScore
from modeling.selection.scores.sdtps import SDTPSScore

SCORES: dict[str, type[nn.Module]] = {"sdtps": SDTPSScore, "centre": CentreScore}
"""The choices of MODEL.SDTPS_SCORE."""
