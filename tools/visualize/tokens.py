"""What the patch selection does to an image: scores, kept patches, and the mixtures that the aggregated tokens are.

Shapes: M modality, N patches, S kept patches, T aggregated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.masks import patch_coverage
from data.sample import MODALITIES
from engine.evaluate import object_share
from modeling.selection import Selection
from tools.visualize.sheet import Sheet, cell_size, dim_dropped, kept_patches, outline, show_image, show_map
from tools.visualize.style import FAINT, LEAST_PEAK, SCORE_MAP, WEIGHT_MAP, Picture, save
from tools.visualize.subject import Subject
from utils.errors import UserError

CELL, GAP, NOTE, LEFT, TOP, BOTTOM = 1.9, 0.12, 0.42, 0.5, 0.85, 0.55  # inches; NOTE is the text under a cell
FIXED = 3
"""Columns before those of the tokens: image, score, kept."""
TOKENS = 4
"""Aggregated tokens shown of each modality."""
CAPTION = (
    "A row per modality. Score: how much each patch matters to the selection. Kept: the best patches, with the others "
    "faded."
)
MIXTURES = (
    " Tokens: how an aggregated token is mixed from the kept patches, in multiples of an even mixture, with how many "
    "of them it effectively draws on (the exponential of the entropy of its weights)."
)
OUTLINE = " The outline is that of the true object, which the model never sees."


@dataclass(frozen=True)
class Part:
    """The selection of one modality of one image, and which of its tokens are shown."""

    score: Tensor
    """(N,)."""
    indices: Tensor
    """(S,)."""
    weights: Tensor
    """(T, S), with no row where the kept patches are not aggregated."""
    tokens: list[int]

    @property
    def kept(self) -> np.ndarray:
        """Return the kept patches as a mask (N,) bool."""
        return kept_patches(self.indices, len(self.score))

    @property
    def shown(self) -> Tensor:
        """Return the weights of the tokens that are shown, as multiples of an even mixture."""
        return self.weights[self.tokens] * len(self.indices)


def draw_tokens(
    subject: Subject, index: int, folder: Path, *, dpi: int, tokens: Sequence[int] | None = None
) -> Picture:
    """Draw the picture of sample `index`.

    Args:
        subject: the model and its test set.
        index: the sample's position in the split.
        folder: where the picture is written.
        dpi: pixels per inch.
        tokens: which aggregated tokens to show; None takes the most peaked ones of each modality.

    Raises:
        UserError: the model has no patch selection, or no such token.
    """
    parts = read_parts(subject.output(index).selection, tokens)
    sample, pixels, mask = subject.split.samples[index], subject.pixels(index), subject.mask(index)
    grid, size_hw = subject.model.backbone.grid, subject.display_hw
    coverage = patch_coverage([sample], grid)
    present = [part for part, image in zip(parts, pixels, strict=True) if image is not None]
    # The modalities share their colour scales.
    scores = torch.cat([part.score for part in present])
    score_scale = {"cmap": SCORE_MAP, "vmin": float(scores.min()), "vmax": float(scores.max())}
    peak = max([LEAST_PEAK, *(float(part.shown.max()) for part in present if part.tokens)])

    width, height = cell_size(size_hw, CELL)
    columns = range(FIXED + len(parts[0].tokens))
    x = [LEFT + column * (width + GAP) + (GAP if column >= FIXED else 0.0) for column in columns]
    bottom = TOP + len(MODALITIES) * (height + NOTE)
    sheet = Sheet(max(x[-1] + width + 0.2, 6.0), bottom + BOTTOM)
    subtitle = f"id {sample.pid}, camera {sample.camera + 1}; {grid[0]} x {grid[1]} patches"
    sheet.title(LEFT, 0.12, f"What is kept of {sample.name}", subtitle)
    for left, head in zip(
        x, ("image", "score", "kept", "aggregated tokens: weights of the kept patches"), strict=False
    ):
        sheet.text(left, TOP - 0.07, head, va="baseline", fontweight="bold")
    for m, (part, image) in enumerate(zip(parts, pixels, strict=True)):
        y = TOP + m * (height + NOTE)
        sheet.row_label(LEFT, y + height / 2, MODALITIES[m])
        cells = [sheet.axes(left, y, width, height) for left in x]
        if image is None:
            for axes in cells:
                show_image(axes, None)
            continue
        show_image(cells[0], image)
        score_map = show_map(cells[1], part.score.numpy(), grid, size_hw, **score_scale)
        show_image(cells[2], dim_dropped(image, part.kept, grid))
        for axes, weights in zip(cells[FIXED:], part.shown, strict=True):
            values = on_patches(weights, part.indices, len(part.score))
            weight_map = show_map(axes, values, grid, size_hw, WEIGHT_MAP, vmin=0, vmax=peak)
        for axes in cells[1:]:
            outline(axes, mask)
        for left, note in zip(x[FIXED - 1 :], notes(part, coverage), strict=True):
            sheet.text(left, y + height + 0.04, note, fontsize=6.5, color=FAINT)
    sheet.colour_bar(score_map, x[1], bottom + 0.05, width, "score")
    if parts[0].tokens:
        sheet.colour_bar(weight_map, x[FIXED], bottom + 0.05, min(2 * width + GAP, 2.0), "weight, 1 = an even mixture")
    path = save(sheet.figure, folder / f"tokens_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    caption = CAPTION + (MIXTURES if parts[0].tokens else "") + ("" if mask is None else OUTLINE)
    return Picture(path, f"Tokens of {sample.name}", caption)


def notes(part: Part, coverage: Tensor | None) -> list[str]:
    """Write what stands under the kept patches and each token; `coverage` (1, N) is None if the object is unknown."""
    kept = f"{len(part.indices)} of {len(part.score)}"
    if coverage is not None:
        shares = object_share(part.indices[None, None], coverage)
        kept += f"; {shares['kept_on_object']:.0f} % on the\nobject (of all: {shares['all_on_object']:.0f} %)"
    counts = effective_patches(part.weights[part.tokens]).tolist()
    return [
        kept,
        *(f"token {t} draws\non {n:.1f} of {len(part.indices)}" for t, n in zip(part.tokens, counts, strict=True)),
    ]


def read_parts(selection: Selection | None, tokens: Sequence[int] | None) -> list[Part]:
    """Take the first image's part of a selection, by modality.

    Raises:
        UserError: there is no selection, or no such token.
    """
    if selection is None:
        raise UserError(
            "The model keeps all patches: without SDTPS (MODEL.USE_SDTPS is False) there is no selection to show. "
            "The other pictures do not need it."
        )
    parts = []
    for m, (score, indices) in enumerate(zip(selection.score, selection.indices, strict=True)):
        weights = torch.empty(0, indices.shape[1]) if selection.weights is None else selection.weights[m][0].cpu()
        parts.append(Part(score[0].cpu(), indices[0].cpu(), weights, choose_tokens(weights, tokens)))
    return parts


def choose_tokens(weights: Tensor, wanted: Sequence[int] | None) -> list[int]:
    """Choose rows of weights (T, S): the wanted ones, or the most peaked, most peaked first.

    Raises:
        UserError: there is no such token.
    """
    count = len(weights)
    if wanted is None:
        return effective_patches(weights).argsort(stable=True)[:TOKENS].tolist()
    if not count:
        raise UserError("--tokens is given, but this model does not aggregate the kept patches. Leave it out.")
    if wrong := [token for token in wanted if not 0 <= token < count]:
        raise UserError(f"--tokens has {wrong[0]}, but {count} tokens come out of the aggregation: 0 to {count - 1}.")
    return list(wanted)


def effective_patches(weights: Tensor) -> Tensor:
    """Compute exp(entropy) of weights that sum to 1 over the last axis: 1 for one patch, S for an even mixture of S."""
    return torch.special.entr(weights).sum(-1).exp()


def on_patches(values: Tensor, indices: Tensor, num_patches: int) -> np.ndarray:
    """Put values (S,) of the patches `indices` (S,) on all patches (N,), with nan elsewhere."""
    spread = torch.full((num_patches,), torch.nan)
    spread[indices] = values.float()
    return spread.numpy()
