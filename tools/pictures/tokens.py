"""What SDTPS does to an image: scores, kept patches, and what the aggregated tokens are made of.

Shapes: M modality, N patches, S kept patches, T aggregated tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.masks import patch_coverage
from data.records import MODALITIES
from tools.pictures.scene import Scene
from tools.pictures.sheet import Sheet, cell_size, dim_dropped, kept_patches, outline, show_image, show_map
from tools.pictures.style import ABSENT, FAINT, SCORE_MAP, WEIGHT_MAP, Picture, save
from utils.errors import UserError

CELL, GAP, NOTE, LEFT, TOP, BOTTOM = 1.9, 0.12, 0.4, 0.5, 0.95, 0.6  # inches; NOTE is the text under a cell
TOKENS = 4
"""Aggregated tokens shown of each modality."""
CAPTION = (
    "A row per modality. Score: how much each patch matters, by the predictor and the globals of all three modalities. "
    "Kept: the best patches, the others faded. Tokens: how an aggregated token is mixed from the kept patches, in "
    "multiples of an even mixture, with the number of patches that it effectively draws on (the exponential of the "
    "entropy of its weights)."
)
OUTLINE = " The outline is the object's true one, which the model never sees."


def draw_tokens(scene: Scene, index: int, folder: Path, *, dpi: int, tokens: tuple[int, ...] | None = None) -> Picture:
    """The picture of sample `index`.

    Args:
        tokens: which aggregated tokens to show; None takes the most peaked ones of each modality.

    Raises:
        UserError: the model has no SDTPS, or no such token.
    """
    selection = scene.output(index).selection
    if selection is None:
        raise UserError(
            "The model keeps all patches: there is no selection to be shown without SDTPS (MODEL.USE_SDTPS is False). "
            "The other pictures do without it."
        )
    sample, pixels, mask = scene.split.samples[index], scene.pixels(index), scene.mask(index)
    grid, size = scene.model.backbone.grid, scene.display_hw
    coverage = patch_coverage([sample], grid)
    scores = [score[0].cpu() for score in selection.score]
    indices = [kept[0].cpu() for kept in selection.indices]
    weights = [weight[0].cpu() for weight in selection.weights]
    chosen = [choose_tokens(weight, tokens) for weight in weights]
    shown = [m for m, image in enumerate(pixels) if image is not None]

    width, height = cell_size(size, CELL)
    columns = 3 + max(map(len, chosen))
    note = NOTE if height >= width else NOTE - 0.1
    x = [LEFT + column * (width + GAP) + (0.15 if column > 2 else 0.0) for column in range(columns)]
    sheet = Sheet(x[-1] + width + 0.2, TOP + len(MODALITIES) * (height + note) + BOTTOM)
    what = f"id {sample.pid}, camera {sample.camera + 1}"
    sheet.title(LEFT, 0.12, f"What SDTPS keeps of {sample.name}", f"{what}; grid of {grid[0]} x {grid[1]} patches")
    for column, name in enumerate(("image", "score", "kept")):
        sheet.text(x[column], TOP - 0.2, name, fontweight="bold")
    sheet.text(x[3], TOP - 0.2, "aggregated tokens: weights of the kept patches", fontweight="bold")

    low, high = min(float(scores[m].min()) for m in shown), max(float(scores[m].max()) for m in shown)
    peak = max(float(weights[m][chosen[m]].max()) * weights[m].shape[1] for m in shown)
    for m, name in enumerate(MODALITIES):
        y = TOP + m * (height + note)
        cells = [sheet.axes(x[column], y, width, height) for column in range(3 + len(chosen[m]))]
        sheet.text(
            LEFT - 0.12, y + height / 2, name, ha="right", va="center", rotation=90, fontsize=10, fontweight="bold"
        )
        if pixels[m] is None:
            for axes in cells:
                show_image(axes, None)
            continue
        kept = kept_patches(indices[m], scores[m].numel())
        show_image(cells[0], pixels[m])
        score_map = show_map(cells[1], scores[m].numpy(), grid, size, cmap=SCORE_MAP, vmin=low, vmax=high)
        show_image(cells[2], dim_dropped(pixels[m], kept, grid))
        for axes in cells[1:3]:
            outline(axes, mask)
        sheet.text(x[2], y + height + 0.04, _kept_note(kept, coverage), fontsize=6.5, color=FAINT)
        for axes, left, token in zip(cells[3:], x[3:], chosen[m], strict=False):
            values = on_patches(weights[m][token] * weights[m].shape[1], indices[m], kept.size)
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[], facecolor=ABSENT)
            axes.spines[:].set_visible(False)
            weight_map = show_map(axes, values, grid, size, cmap=WEIGHT_MAP, vmin=0, vmax=peak)
            outline(axes, mask)
            effective = float(effective_patches(weights[m][token]))
            sheet.text(left, y + height + 0.04, f"token {token}:\n{effective:.1f} patches", fontsize=6.5, color=FAINT)
    y = TOP + len(MODALITIES) * (height + note) + 0.05
    sheet.colour_bar(score_map, x[1], y, width, "score")
    sheet.colour_bar(weight_map, x[3], y, 2 * width + GAP, "weight, 1 = an even mixture")
    path = save(sheet.figure, folder / f"tokens_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    return Picture(path, f"Tokens of {sample.name}", CAPTION + (OUTLINE if mask is not None else ""))


def choose_tokens(weights: Tensor, wanted: tuple[int, ...] | None) -> list[int]:
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


def _kept_note(kept: np.ndarray, coverage: Tensor | None) -> str:
    counts = f"{kept.sum()} of {kept.size}"
    if coverage is None:
        return counts
    of_kept, of_all = share_on_object(kept, coverage[0])
    return f"{counts}; {100 * of_kept:.0f} % on\nfigure (all: {100 * of_all:.0f} %)"
