"""What SDTPS does to an image: scores, kept patches, and what the aggregated tokens are made of.

Shapes: M modality, N patches, S kept patches, T aggregated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data.masks import patch_coverage
from data.sample import MODALITIES
from modeling.selection.sdtps import Selection
from tools.visualize.gallery import Scene
from tools.visualize.sheet import Sheet, cell_size, dim_dropped, kept_patches, outline, show_image, show_map
from tools.visualize.style import FAINT, LEAST_PEAK, SCORE_MAP, WEIGHT_MAP, Picture, save
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL, GAP, NOTE, LEFT, TOP, BOTTOM = 1.9, 0.12, 0.42, 0.5, 0.85, 0.55  # inches; NOTE is the text under a cell
FIXED = 3
"""Columns before those of the tokens: image, score, kept."""
TOKENS = 4
"""Aggregated tokens shown of each modality."""
CAPTION = (
    "A row per modality. Score: how much each patch matters, by the predictor and the globals of all three modalities. "
    "Kept: the best patches, the others faded. Tokens: how an aggregated token is mixed from the kept patches, in "
    "multiples of an even mixture, with how many of them it effectively draws on (the exponential of the entropy "
    "of its weights)."
)
OUTLINE = " The outline is the object's true one, which the model never sees."


@dataclass(frozen=True)
class Part:
    """What SDTPS made of one modality of one image, and which of its tokens are shown."""

    score: Tensor
    """(N,)."""
    indices: Tensor
    """(S,)."""
    weights: Tensor
    """(T, S)."""
    tokens: list[int]

    @property
    def kept(self) -> np.ndarray:
        """(N,) bool."""
        return kept_patches(self.indices, len(self.score))

    @property
    def relative(self) -> Tensor:
        """(T, S), the weights as multiples of an even mixture."""
        return self.weights * len(self.indices)


@dataclass(frozen=True)
class Scales:
    """Ends of the colour scales, common to the modalities that are shown."""

    lowest_score: float
    highest_score: float
    highest_weight: float


def draw_tokens(scene: Scene, index: int, folder: Path, *, dpi: int, tokens: Sequence[int] | None = None) -> Picture:
    """The picture of sample `index`.

    Args:
        tokens: which aggregated tokens to show; None takes the most peaked ones of each modality.

    Raises:
        UserError: the model has no SDTPS, or no such token.
    """
    parts = read_parts(scene.output(index).selection, tokens)
    sample, pixels, mask = scene.split.samples[index], scene.pixels(index), scene.mask(index)
    coverage = patch_coverage([sample], scene.model.backbone.grid)
    shown = [part for part, image in zip(parts, pixels, strict=True) if image is not None]
    scales = Scales(
        min(float(part.score.min()) for part in shown),
        max(float(part.score.max()) for part in shown),
        max(LEAST_PEAK, *(float(part.relative[part.tokens].max()) for part in shown)),
    )

    width, height = cell_size(scene.display_hw, CELL)
    columns = FIXED + len(parts[0].tokens)
    x = [LEFT + column * (width + GAP) + (GAP if column >= FIXED else 0.0) for column in range(columns)]
    rows = [TOP + m * (height + NOTE) for m in range(len(MODALITIES))]
    bottom = rows[-1] + height + NOTE
    sheet = Sheet(max(x[-1] + width + 0.2, 6.0), bottom + BOTTOM)
    rows_of_grid, columns_of_grid = scene.model.backbone.grid
    sheet.title(
        LEFT, 0.12, f"What SDTPS keeps of {sample.name}",
        f"id {sample.pid}, camera {sample.camera + 1}; {rows_of_grid} x {columns_of_grid} patches",
    )  # fmt: skip
    heads = ("image", "score", "kept", "aggregated tokens: weights of the kept patches")
    for left, head in zip(x, heads, strict=False):
        sheet.text(left, TOP - 0.07, head, va="baseline", fontweight="bold")
    for name, y, part, image in zip(MODALITIES, rows, parts, pixels, strict=True):
        sheet.row_label(LEFT, y + height / 2, name)
        cells = [sheet.axes(left, y, width, height) for left in x]
        if image is None:
            for axes in cells:
                show_image(axes, None)
            continue
        score_map, weight_map = _draw_part(cells, part, image, mask, scene.model.backbone.grid, scales)
        for left, note in zip(x[FIXED - 1 :], notes(part, coverage), strict=True):
            sheet.text(left, y + height + 0.04, note, fontsize=6.5, color=FAINT)
    sheet.colour_bar(score_map, x[1], bottom + 0.05, width, "score")
    sheet.colour_bar(weight_map, x[FIXED], bottom + 0.05, min(2 * width + GAP, 2.0), "weight, 1 = an even mixture")
    path = save(sheet.figure, folder / f"tokens_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    return Picture(path, f"Tokens of {sample.name}", CAPTION + (OUTLINE if mask is not None else ""))


def notes(part: Part, coverage: Tensor | None) -> list[str]:
    """What stands under the kept patches and under each token; `coverage` (1, N) where the object is known."""
    kept = f"{len(part.indices)} of {len(part.score)}"
    if coverage is not None:
        of_kept, of_all = share_on_object(part.kept, coverage[0])
        kept += f"; {100 * of_kept:.0f} % on the\nobject (of all: {100 * of_all:.0f} %)"
    counts = effective_patches(part.weights[part.tokens]).tolist()
    return [
        kept,
        *(f"token {t} draws\non {n:.1f} of {len(part.indices)}" for t, n in zip(part.tokens, counts, strict=True)),
    ]


def _draw_part(
    cells: Sequence[Axes],
    part: Part,
    image: np.ndarray,
    mask: np.ndarray | None,
    grid: tuple[int, int],
    scales: Scales,
) -> tuple[Any, Any]:
    """Fill the cells of a modality; what the colour bars of score and weights take."""
    size = image.shape[:2]
    ends = {"vmin": scales.lowest_score, "vmax": scales.highest_score}
    show_image(cells[0], image)
    score_map = show_map(cells[1], part.score.numpy(), grid, size, cmap=SCORE_MAP, **ends)
    show_image(cells[2], dim_dropped(image, part.kept, grid))
    for axes, token in zip(cells[FIXED:], part.tokens, strict=True):
        values = on_patches(part.relative[token], part.indices, len(part.score))
        weight_map = show_map(axes, values, grid, size, cmap=WEIGHT_MAP, vmin=0, vmax=scales.highest_weight)
    for axes in cells[1:]:
        outline(axes, mask)
    return score_map, weight_map


def read_parts(selection: Selection | None, tokens: Sequence[int] | None) -> list[Part]:
    """The first image's part of a selection, by modality.

    Raises:
        UserError: there is no selection, or no such token.
    """
    if selection is None:
        raise UserError(
            "The model keeps all patches: there is no selection to be shown without SDTPS (MODEL.USE_SDTPS is False). "
            "The other pictures do without it."
        )
    parts = zip(selection.score, selection.indices, selection.weights, strict=True)
    return [
        Part(score[0].cpu(), indices[0].cpu(), weights[0].cpu(), choose_tokens(weights[0].cpu(), tokens))
        for score, indices, weights in parts
    ]


def choose_tokens(weights: Tensor, wanted: Sequence[int] | None) -> list[int]:
    """Rows of weights (T, S): the wanted ones, or the most peaked, most peaked first.

    Raises:
        UserError: there is no such token.
    """
    count = len(weights)
    if wanted is None:
        return effective_patches(weights).argsort(stable=True)[:TOKENS].tolist()
    if wrong := [token for token in wanted if not 0 <= token < count]:
        raise UserError(f"--tokens has {wrong[0]}, but {count} tokens come out of the aggregation: 0 to {count - 1}.")
    return list(wanted)


def effective_patches(weights: Tensor) -> Tensor:
    """exp(entropy) over the last axis of weights that sum to 1: 1 for a single patch, S for an even mixture of S."""
    return torch.special.entr(weights).sum(-1).exp()


def on_patches(values: Tensor, indices: Tensor, num_patches: int) -> np.ndarray:
    """Values (S,) of the patches `indices` (S,) on all patches (N,), nan elsewhere."""
    spread = torch.full((num_patches,), torch.nan)
    spread[indices] = values.float()
    return spread.numpy()


def share_on_object(kept: np.ndarray, coverage: Tensor) -> tuple[float, float]:
    """Which share of the area of the kept patches, and of all, lies on the object.

    Args:
        kept: (N,) bool.
        coverage: (N,) share of each patch on the object.
    """
    return float(coverage[torch.from_numpy(kept)].mean()), float(coverage.mean())
