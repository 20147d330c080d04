"""Features in the plane: identities as colours, cameras and modalities as shapes.

Shapes: N samples, M modality, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.sample import MODALITIES
from tools.visualize.style import FAINT, INK, MARKERS, PALETTE, PAPER, Picture, new_figure, save
from tools.visualize.subject import Subject, spread
from utils.errors import UserError
from utils.extras import import_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("tsne", "pca")
TITLES = {"tsne": "t-SNE", "pca": "PCA"}
PERPLEXITY = 30.0
SEED = 0
CAPTION = (
    "{shown}, with a colour per identity. Left: the descriptor '{descriptor}', which the gallery is ranked by, with a "
    "shape per {group} and the number of each identity at the centre of its points. Right: the globals of the single "
    "modalities together, in the same colours, with a shape per modality. {warning}"
)
WARNINGS = {
    "tsne": "t-SNE keeps neighbours together; distances between clusters and their sizes mean nothing.",
    "pca": "The two directions of largest variance; what they leave out may still separate the identities.",
}


def draw_tsne(subject: Subject, folder: Path, *, dpi: int, num_ids: int, method: str) -> Picture:
    """Draw the picture of the samples of `num_ids` identities, evenly spaced over those of the split."""
    if not 1 <= num_ids <= len(PALETTE):
        raise UserError(f"--ids is {num_ids}. Allowed: 1 to {len(PALETTE)}, the number of colours in a picture.")
    split = subject.split
    pids = np.unique(split.pids)
    chosen = pids[spread(num_ids, len(pids))]
    rows = np.isin(split.pids, chosen).nonzero()[0]
    single, present = modality_globals(subject, rows)
    modality = np.broadcast_to(np.arange(len(MODALITIES)), present.shape)[present]
    owner = np.broadcast_to(split.pids[rows][:, None], present.shape)[present]
    groups = {split.groups[row]: subject.group_name(row) for row in rows}

    figure = new_figure(10.5, 5.4, layout="constrained")
    left, right = figure.subplots(1, 2)
    points = embed(subject.descriptors[subject.descriptor][rows], method)
    _scatter(left, points, split.pids[rows], chosen, split.groups[rows], dict(sorted(groups.items())))
    _name_ids(left, points, split.pids[rows], chosen)
    left.set_title(f"descriptor '{subject.descriptor}'")
    points = embed(single[torch.from_numpy(present)], method)
    _scatter(right, points, owner, chosen, modality, dict(enumerate(MODALITIES)))
    right.set_title("globals of the modalities")
    title = f"{TITLES[method]} of {len(chosen)} of {len(pids)} test identities, {len(rows)} samples"
    figure.suptitle(title, x=0.004, ha="left", fontsize=11, fontweight="bold")
    caption = CAPTION.format(shown=title, descriptor=subject.descriptor, group=split.protocol, warning=WARNINGS[method])
    return Picture(save(figure, folder / "tsne.png", dpi=dpi), "Features in the plane", caption)


def modality_globals(subject: Subject, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return the globals (n, M, D) of samples `rows` (n,), of unit length, and which are present (n, M) bool.

    The descriptor 'ori' is the modalities' globals side by side.
    """
    single = subject.descriptors["ori"][rows].unflatten(1, (len(MODALITIES), -1))
    present = np.array([[path is not None for path in subject.split.samples[row].paths] for row in rows])
    return F.normalize(single, dim=-1), present


def embed(features: Tensor, method: str) -> np.ndarray:
    """Map features (n, D) to the plane (n, 2), in the same way at every call.

    Args:
        features: what is mapped.
        method: 'tsne' (van der Maaten & Hinton, JMLR 2008; scikit-learn's) or 'pca'.

    Raises:
        UserError: scikit-learn is not installed, or there are too few features.
    """
    if len(features) < 3:
        raise UserError(f"There are {len(features)} features; a plane needs at least 3. Raise --ids.")
    if method == "pca":
        return principal_components(features).numpy()
    otherwise = "take --method pca, which needs nothing"
    manifold = import_extra("sklearn.manifold", "t-SNE", package="scikit-learn", otherwise=otherwise)
    threadpoolctl = import_extra("threadpoolctl", "t-SNE")  # comes with scikit-learn
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=SEED)
    with threadpoolctl.threadpool_limits(1):  # one order of sums, and no threads that a busy machine would stall
        return tsne.fit_transform(features.numpy())


def principal_components(features: Tensor) -> Tensor:
    """Project features (n, D) on their two directions of largest variance, whose largest entries are positive."""
    centred = (features - features.mean(dim=0)).double()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return centred @ (directions * largest.sign()).T


def _scatter(
    axes: Axes,
    points: np.ndarray,
    pids: np.ndarray,
    chosen: Sequence[int],
    kinds: np.ndarray,
    kind_names: dict[int, str],
) -> None:
    """Draw points (n, 2) coloured by identity and shaped by kind, with a legend of the shapes."""
    for i, (kind, name) in enumerate(kind_names.items()):
        marker = MARKERS[i % len(MARKERS)]
        axes.scatter([], [], s=22, color=FAINT, marker=marker, label=name)
        for pid, colour in zip(chosen, PALETTE, strict=False):
            x, y = points[(pids == pid) & (kinds == kind)].T
            axes.scatter(x, y, s=20, color=colour, marker=marker, linewidth=0.4, edgecolor=PAPER, alpha=0.9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(8, len(kind_names)), handletextpad=0.1)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    axes.spines[:].set_visible(True)


def _name_ids(axes: Axes, points: np.ndarray, pids: np.ndarray, chosen: Sequence[int]) -> None:
    """Write the number of each identity at the median of its points (n, 2)."""
    for pid, colour in zip(chosen, PALETTE, strict=False):
        x, y = np.median(points[pids == pid], axis=0)
        box = {"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": colour, "linewidth": 0.9, "alpha": 0.9}
        axes.text(x, y, str(pid), ha="center", va="center", color=INK, fontsize=7, bbox=box)
