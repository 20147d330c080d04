"""How much of a score is the place of the patch: its mean over the test set, and what it says of an empty image.

Shapes: I images of the split, M modality, N patches, S kept patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.masks import patch_coverage
from data.sample import MODALITIES
from engine.evaluate import object_share
from tools.visualize.scores import first_selection, own_name
from tools.visualize.style import SCORE_MAP, WEIGHT_MAP, Picture, save
from tools.visualize.subject import Subject
from tools.visualize.table import Column, Group, Scale, Table

CAPTION = (
    "A row per modality. Mean: the score of a patch less the mean of its image, averaged over the test set. Empty "
    "image: the score where only the place of the patch is left. On the object: where the object is in the test set. "
    "Under a map is the share of the kept area that would lie on the object if the map chose the patches of all "
    "images; a score that looks at the image has to keep more."
)


@dataclass(frozen=True)
class Places:
    """The scores of a split, and what is left of them without the content of the images."""

    score: Tensor
    """(I, M, N) less the mean over the patches."""
    indices: Tensor
    """(I, M, S)."""
    empty: Tensor
    """(M, N) less the mean over the patches."""
    present: Tensor
    """(I, M) bool."""

    @property
    def mean(self) -> Tensor:
        """Average the score over the images that have the modality: (M, N)."""
        weights = self.present.unsqueeze(-1).float()
        return (self.score * weights).sum(dim=0) / weights.sum(dim=0).clamp_min(1)

    @property
    def explained(self) -> list[float]:
        """Return the share of the variance of the score that its mean at each place explains, by modality."""
        total = [self.score[self.present[:, m], m].var(unbiased=False) for m in range(self.score.shape[1])]
        return [float(mean.var(unbiased=False) / all_) for mean, all_ in zip(self.mean, total, strict=True)]

    def chosen_by(self, values: Tensor) -> Tensor:
        """Return the patches (I, M, S) that one map of values (M, N) would keep in every image."""
        best = values.argsort(dim=-1, descending=True, stable=True)[:, : self.indices.shape[-1]]
        return best.expand_as(self.indices)

    def kept_on_object(self, indices: Tensor, coverage: Tensor, m: int) -> float:
        """Return the share of the area of patches (I, M, S) on the object in modality `m`, in percent."""
        columns = slice(m, m + 1)
        return object_share(indices[:, columns], coverage, self.present[:, columns])["kept_on_object"]


@torch.inference_mode()
def measure_places(subject: Subject) -> Places:
    """Score every image of the split, and an empty one.

    Raises:
        UserError: the model has no patch selection.
    """
    first_selection(subject)
    subject.model.eval()
    scores, indices, present = [], [], []
    for batch in subject.evaluator.loader:
        batch = batch.to(subject.evaluator.precision.device)
        images = subject.evaluator.transform(batch.images, batch.present)
        selection = subject.run(images, batch).selection
        scores.append(_centred(selection.score))
        indices.append(torch.stack(selection.indices, dim=1).cpu())
        present.append(batch.present.cpu())
    empty = subject.run(torch.zeros_like(images), batch).selection
    return Places(torch.cat(scores), torch.cat(indices), _centred(empty.score)[0], torch.cat(present))


def draw_places(subject: Subject, folder: Path, *, dpi: int) -> Picture:
    """Draw the picture.

    Raises:
        UserError: the model has no patch selection.
    """
    places, grid = measure_places(subject), subject.model.backbone.grid
    coverage = patch_coverage(subject.split.samples, grid)
    maps = {"mean": places.mean, "empty image": places.empty}
    peak = max(float(values.abs().max()) for values in maps.values())
    scale = Scale(SCORE_MAP, -peak, peak, "score less its mean")
    columns = [
        Column(head=head, cells=list(values.numpy()), scale=scale, notes=_notes(places, values, coverage))
        for head, values in maps.items()
    ]
    groups = [Group("score", columns)]
    if coverage is not None:
        kept = [places.kept_on_object(places.indices, coverage, m) for m in range(len(MODALITIES))]
        where = Column(
            cells=[coverage.mean(dim=0).numpy()] * len(MODALITIES),
            scale=Scale(WEIGHT_MAP, 0.0, 1.0, "share of the patch"),
            notes=[f"the model keeps\n{share:.0f} % on it" for share in kept],
        )
        groups.append(Group("on the object", [where]))
    explained = ", ".join(f"{100 * share:.0f}" for share in places.explained)
    table = Table(
        title=f"How much of the score is the place: {own_name(first_selection(subject))}",
        subtitle=f"The mean at each place explains {explained} % of the variance of the score.",
        rows=[(name, bool(places.present[:, m].any())) for m, name in enumerate(MODALITIES)],
        grid=grid,
        size_hw=subject.display_hw,
        mask=None,
    )
    path = save(table.draw(groups).figure, folder / "places.png", dpi=dpi)
    return Picture(path, "Place and score", CAPTION)


def _notes(places: Places, values: Tensor, coverage: Tensor | None) -> list[str]:
    """Say for each modality how much of what a map (M, N) would keep lies on the object."""
    if coverage is None:
        return []
    chosen = places.chosen_by(values)
    shares = [places.kept_on_object(chosen, coverage, m) for m in range(len(MODALITIES))]
    return [f"would keep {share:.0f} %\non the object" for share in shares]


def _centred(score: tuple[Tensor, ...]) -> Tensor:
    """Stack M x (B, N) and take the mean over the patches away: (B, M, N), on the CPU."""
    stacked = torch.stack(score, dim=1).cpu()
    return stacked - stacked.mean(dim=-1, keepdim=True)
