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
from tools.visualize.sheet import Sheet, cell_size, show_map
from tools.visualize.style import FAINT, SCORE_MAP, WEIGHT_MAP, Picture, save
from tools.visualize.subject import Subject
from utils.errors import UserError

CELL, GAP, NOTE, LEFT, TOP = 1.9, 0.12, 0.5, 0.5, 0.85  # inches; NOTE is the text under a cell
CAPTION = (
    "A row per modality. Mean score: that of a patch, averaged over the test set. Empty image: the score where only "
    "the place of the patch is left. The object: where it is in the test set. Under a map is the share of the kept "
    "area that would lie on the object if the map chose the patches of all images; a score that looks at the image has "
    "to keep more."
)


@dataclass(frozen=True)
class Places:
    """What is left of the scores of a split without the content of the images."""

    score: Tensor
    """(I, M, N), centred on the mean of each image and modality."""
    indices: Tensor
    """(I, M, S)."""
    empty: Tensor
    """(M, N)."""
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


@torch.inference_mode()
def measure_places(subject: Subject) -> Places:
    """Score every image of the split, and an empty one.

    Raises:
        UserError: the model has no patch selection.
    """
    if not subject.model.selections:
        raise UserError(
            "The model keeps all patches: without SDTPS (MODEL.USE_SDTPS is False) there is no score to show."
        )
    subject.model.eval()
    selections, present = [], []
    for batch in subject.evaluator.loader:
        batch = batch.to(subject.evaluator.precision.device)
        images = subject.evaluator.transform(batch.images, batch.present)
        selections.append(subject.run(images, batch).selection)
        present.append(batch.present.cpu())
    empty = subject.run(torch.zeros_like(images), batch).selection
    score = torch.cat([_stack(selection.score) for selection in selections])
    return Places(
        score=score - score.mean(dim=-1, keepdim=True),
        indices=torch.cat([_stack(selection.indices) for selection in selections]),
        empty=_stack(empty.score)[0],
        present=torch.cat(present),
    )


def draw_places(subject: Subject, folder: Path, *, dpi: int) -> Picture:
    """Draw the picture."""
    places, grid, size_hw = measure_places(subject), subject.model.backbone.grid, subject.display_hw
    coverage = patch_coverage(subject.split.samples, grid)
    maps = {"mean": places.mean, "empty": places.empty - places.empty.mean(dim=-1, keepdim=True)}
    peak = max(float(values.abs().max()) for values in maps.values())
    width, height = cell_size(size_hw, CELL)
    x = [LEFT + column * (width + GAP) for column in range(len(maps) + (coverage is not None))]
    bottom = TOP + len(MODALITIES) * (height + NOTE)
    sheet = Sheet(max(x[-1] + width + 0.2, 5.2), bottom + 0.5)
    sheet.title(LEFT, 0.12, "How much of the score is the place", _headline(places, coverage))
    for left, head in zip(x, ("mean score", "empty image", "the object"), strict=False):
        sheet.text(left, TOP - 0.07, head, va="baseline", fontweight="bold")
    for m, name in enumerate(MODALITIES):
        y = TOP + m * (height + NOTE)
        sheet.row_label(LEFT, y + height / 2, name)
        for left, values in zip(x, maps.values(), strict=False):
            axes, options = sheet.axes(left, y, width, height), {"vmin": -peak, "vmax": peak}
            drawn = show_map(axes, values[m].numpy(), grid, size_hw, SCORE_MAP, **options)
            note = ""
            if coverage is not None:
                kept = object_share(places.chosen_by(values)[:, m : m + 1], coverage)["kept_on_object"]
                note = f"would keep {kept:.0f} %\non the object"
            sheet.text(left, y + height + 0.04, note, fontsize=6.5, color=FAINT)
        if coverage is not None:
            axes, where = sheet.axes(x[-1], y, width, height), coverage.mean(dim=0).numpy()
            share = show_map(axes, where, grid, size_hw, WEIGHT_MAP, vmin=0, vmax=1)
            kept = object_share(places.indices[:, m : m + 1], coverage)["kept_on_object"]
            sheet.text(x[-1], y + height + 0.04, f"the model keeps\n{kept:.0f} % on it", fontsize=6.5, color=FAINT)
    sheet.colour_bar(drawn, x[0], bottom + 0.02, width, "score less its mean")
    if coverage is not None:
        sheet.colour_bar(share, x[-1], bottom + 0.02, width, "share of images")
    return Picture(save(sheet.figure, folder / "places.png", dpi=dpi), "Place and score", CAPTION)


def _headline(places: Places, coverage: Tensor | None) -> str:
    text = f"place explains {', '.join(f'{100 * share:.0f}' for share in places.explained)} % of the score's variance"
    if coverage is None:
        return text
    shares = object_share(places.indices, coverage)
    kept, all_ = shares["kept_on_object"], shares["all_on_object"]
    return f"{text}\non the object: {kept:.0f} % of what is kept, {all_:.0f} % of all"


def _stack(values: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([value.cpu() for value in values], dim=1)
