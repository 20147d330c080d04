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
from tools.visualize.scores import Choice, choose
from tools.visualize.sheet import dim_dropped, kept_patches
from tools.visualize.style import LEAST_PEAK, SCORE_MAP, WEIGHT_MAP, Picture, save
from tools.visualize.subject import Subject
from tools.visualize.table import Column, Group, Scale, Table
from utils.errors import UserError

TOKENS = 4
"""Aggregated tokens shown of each modality."""
CAPTION = (
    "A row per modality. Score: how much each patch matters to the selection. Kept: the best patches, with the others "
    "faded."
)
OTHERS = (
    " The model's own score comes first; the others score the same tokens, and under each stands the share of its kept "
    "patches that the model keeps, too."
)
MIXTURES = (
    " Tokens: how an aggregated token is mixed from the kept patches, in multiples of an even mixture, with how many "
    "of them it effectively draws on (the exponential of the entropy of its weights)."
)
OUTLINE = (
    " The outline is that of the true object, which the model never sees. On the object: the share of each patch that "
    "lies on it, with the means over all patches and over the best ones."
)


@dataclass(frozen=True)
class Mixtures:
    """How the tokens of one modality are mixed from its kept patches, and which of them are shown."""

    weights: Tensor
    """(T, S), with no row where the kept patches are not aggregated."""
    tokens: list[int]

    @property
    def shown(self) -> Tensor:
        """Return the weights of the tokens that are shown, as multiples of an even mixture."""
        return self.weights[self.tokens] * self.weights.shape[1]


def draw_tokens(
    subject: Subject,
    index: int,
    folder: Path,
    *,
    dpi: int,
    tokens: Sequence[int] | None = None,
    compare: Sequence[str] = (),
) -> Picture:
    """Draw the picture of sample `index`.

    Args:
        subject: the model and its test set.
        index: the sample's position in the split.
        folder: where the picture is written.
        dpi: pixels per inch.
        tokens: which aggregated tokens to show; None takes the most peaked ones of each modality.
        compare: names of scores that are shown beside the model's own.

    Raises:
        UserError: the model has no patch selection, or no such token, or a score cannot be computed.
    """
    selection, choices = choose(subject, index, compare)
    mixtures = read_mixtures(selection, tokens)
    sample, pixels, mask = subject.split.samples[index], subject.pixels(index), subject.mask(index)
    grid = subject.model.backbone.grid
    coverage = patch_coverage([sample], grid)
    first = [Column(head="image", cells=pixels, outlined=False)]
    if coverage is not None:
        first.append(object_column(coverage, choices[0]))
    groups = [Group("", first), *(score_group(choice, choices[0], pixels, grid, coverage) for choice in choices)]
    if mixtures[0].tokens:
        groups.append(mixture_group(mixtures, choices[0], pixels))
    table = Table(
        title=f"What is kept of {sample.name}",
        subtitle=f"id {sample.pid}, camera {sample.camera + 1}; {grid[0]} x {grid[1]} patches",
        rows=[(name, image is not None) for name, image in zip(MODALITIES, pixels, strict=True)],
        grid=grid,
        size_hw=subject.display_hw,
        mask=mask,
    )
    path = save(table.draw(groups).figure, folder / f"tokens_{index}_{Path(sample.name).stem}.png", dpi=dpi)
    parts = ((OTHERS, compare), (MIXTURES, mixtures[0].tokens), (OUTLINE, mask is not None))
    return Picture(path, f"Tokens of {sample.name}", CAPTION + "".join(part for part, shown in parts if shown))


def object_column(coverage: Tensor, own: Choice) -> Column:
    """Show the share of each patch on the object, `coverage` (1, N), which is the same in all modalities."""
    shares = shares_on_object(own.indices[0], coverage)
    note = f"all patches: {shares['all']:.0f} %\nbest {own.indices.shape[1]}: {shares['oracle']:.0f} %"
    return Column(
        head="on the object",
        cells=[coverage[0].numpy()] * len(MODALITIES),
        notes=[note] * len(MODALITIES),
        scale=Scale(SCORE_MAP, 0.0, 1.0, "share of the patch"),
    )


def score_group(
    choice: Choice,
    own: Choice,
    pixels: Sequence[np.ndarray | None],
    grid: tuple[int, int],
    coverage: Tensor | None,
) -> Group:
    """Show the score and the kept patches of `choice`, which is the model's `own` or is compared with it."""
    shown = choice.score[[m for m, image in enumerate(pixels) if image is not None]]
    kept = [kept_patches(indices, choice.score.shape[1]) for indices in choice.indices]
    images = [
        None if image is None else dim_dropped(image, mask, grid) for image, mask in zip(pixels, kept, strict=True)
    ]
    scale = Scale(SCORE_MAP, float(shown.min()), float(shown.max()), "score")  # the modalities share it
    columns = [
        Column(head="score", cells=list(choice.score.numpy()), scale=scale),
        Column(head="kept", cells=images, notes=notes(choice, own, coverage)),
    ]
    return Group(f"{choice.name}, the model's own" if choice is own else choice.name, columns)


def notes(choice: Choice, own: Choice, coverage: Tensor | None) -> list[str]:
    """Write what stands under the kept patches; `coverage` (1, N) is None if the object is unknown."""
    written = []
    for indices, common in zip(choice.indices, choice.common(own).tolist(), strict=True):
        lines = [f"{len(indices)} of {choice.score.shape[1]}"] if choice is own else []
        if coverage is not None:
            lines.append(f"{shares_on_object(indices, coverage)['kept']:.0f} % on the object")
        if choice is not own:
            lines.append(f"{common:.0f} % in common")
        written.append("\n".join(lines))
    return written


def shares_on_object(indices: Tensor, coverage: Tensor) -> dict[str, float]:
    """Return the shares on the object of the kept patches (S,), of all and of the best ones, for `coverage` (1, N)."""
    shares = object_share(indices[None, None], coverage)
    return {name: shares[f"{name}_on_object"] for name in ("kept", "all", "oracle")}


def mixture_group(mixtures: Sequence[Mixtures], own: Choice, pixels: Sequence[np.ndarray | None]) -> Group:
    """Show the weights of the tokens that are shown, a column for each."""
    num_patches, num_kept = own.score.shape[1], own.indices.shape[1]
    shown = [part.shown for part, image in zip(mixtures, pixels, strict=True) if image is not None]
    scale = Scale(WEIGHT_MAP, 0.0, max(LEAST_PEAK, float(torch.stack(shown).max())), "weight, 1 = an even mixture")
    columns = []
    for i in range(len(mixtures[0].tokens)):
        cells, written = [], []
        for part, indices in zip(mixtures, own.indices, strict=True):
            token = part.tokens[i]
            cells.append(on_patches(part.shown[i], indices, num_patches))
            written.append(f"token {token} draws\non {effective_patches(part.weights[token]):.1f} of {num_kept}")
        columns.append(Column(cells=cells, notes=written, scale=scale))
    return Group("aggregated tokens: weights of the kept patches", columns)


def read_mixtures(selection: Selection, tokens: Sequence[int] | None) -> list[Mixtures]:
    """Take the first image's part of a selection, by modality.

    Raises:
        UserError: there is no such token.
    """
    mixtures = []
    for m, indices in enumerate(selection.indices):
        weights = torch.empty(0, indices.shape[1]) if selection.weights is None else selection.weights[m][0].cpu()
        mixtures.append(Mixtures(weights, choose_tokens(weights, tokens)))
    return mixtures


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
