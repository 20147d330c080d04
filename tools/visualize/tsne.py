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
from tools.visualize.gallery import Scene, spread
from tools.visualize.style import FAINT, INK, MARKERS, PALETTE, PAPER, Picture, new_figure, save
from utils.errors import UserError
from utils.extras import import_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("tsne", "pca")
PERPLEXITY = 30.0
SEED = 0
CAPTION = (
    "{method} of {shown} of the {total} test identities, a colour each. Left the feature '{feat}' that is ranked, a "
    "shape per {view}, the number of each identity in the middle of its points. Right, in the same colours, the "
    "globals of the single modalities together, a shape per modality. {warning}"
)
WARNINGS = {
    "tsne": "t-SNE keeps neighbours together; distances between clusters and their sizes mean nothing.",
    "pca": "The two directions of largest variance; what they leave out may still separate the identities.",
}


def draw_tsne(scene: Scene, folder: Path, *, dpi: int, num_ids: int = len(PALETTE), method: str = "tsne") -> Picture:
    """The picture of the samples of `num_ids` identities, evenly spaced over those of the split."""
    if not 1 <= num_ids <= len(PALETTE):
        raise UserError(
            f"--ids is {num_ids}. Allowed: 1 to {len(PALETTE)}, as many as there are colours to tell apart."
        )
    split = scene.split
    pids = np.unique(split.pids)
    chosen = pids[spread(num_ids, len(pids))]
    rows = np.isin(split.pids, chosen).nonzero()[0]
    headline = scene.features[scene.model.feat][rows]
    single, present = modality_globals(scene, rows)

    figure = new_figure(10.5, 5.4, layout="constrained")
    left, right = figure.subplots(1, 2)
    views = split.groups[rows]
    view_names = {v: f"camera {v + 1}" if split.protocol == "camera" else f"scene {v}" for v in np.unique(views)}
    points = embed(headline, method)
    _scatter(left, points, split.pids[rows], chosen, views, view_names)
    _name_ids(left, points, split.pids[rows], chosen)
    left.set_title(f"feature '{scene.model.feat}'")
    modality = np.broadcast_to(np.arange(len(MODALITIES)), present.shape)[present]
    pids_of = np.repeat(split.pids[rows][:, None], len(MODALITIES), axis=1)[present]
    _scatter(
        right, embed(single[torch.from_numpy(present)], method), pids_of, chosen, modality, dict(enumerate(MODALITIES))
    )
    right.set_title("globals of the modalities")
    name = {"tsne": "t-SNE", "pca": "PCA"}[method]
    figure.suptitle(
        f"{name} of {len(chosen)} of {len(pids)} test identities, {len(rows)} triplets",
        x=0.004, ha="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    path = save(figure, folder / "tsne.png", dpi=dpi)
    caption = CAPTION.format(
        method=name, shown=len(chosen), total=len(pids), feat=scene.model.feat, view=split.protocol,
        warning=WARNINGS[method],
    )  # fmt: skip
    return Picture(path, "Features in the plane", caption)


def modality_globals(scene: Scene, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The globals (n, M, D) of samples `rows` (n,), of unit length, and which modalities are present (n, M) bool.

    The pattern 'ori' is the modalities' globals side by side.
    """
    single = scene.features["ori"][rows].unflatten(1, (len(MODALITIES), -1))
    present = np.array([[path is not None for path in scene.split.samples[row].paths] for row in rows])
    return F.normalize(single, dim=-1), present


def embed(features: Tensor, method: str) -> np.ndarray:
    """Features (n, D) to the plane (n, 2), the same at every call.

    Args:
        method: 'tsne' (van der Maaten & Hinton, JMLR 2008; scikit-learn's) or 'pca'.

    Raises:
        UserError: scikit-learn is not installed, or there are too few features.
    """
    if len(features) < 3:
        raise UserError(f"There are {len(features)} features; a plane needs at least 3. Raise --ids.")
    if method == "pca":
        return principal_components(features).numpy()
    manifold = import_extra(
        "sklearn.manifold", "t-SNE", package="scikit-learn", otherwise="take --method pca, which needs nothing"
    )
    threadpoolctl = import_extra("threadpoolctl", "t-SNE")  # comes with scikit-learn
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=SEED)
    with threadpoolctl.threadpool_limits(1):  # sums in one order; and a busy machine stalls threads of so little work
        return tsne.fit_transform(features.numpy())


def principal_components(features: Tensor) -> Tensor:
    """Features (n, D) on their two directions of largest variance (n, 2); the largest entry of each is positive."""
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
    """Points (n, 2) coloured by identity and shaped by kind, with a legend of the shapes."""
    markers = {kind: MARKERS[i % len(MARKERS)] for i, kind in enumerate(kind_names)}
    for pid, colour in zip(chosen, PALETTE, strict=False):
        for kind, marker in markers.items():
            x, y = points[(pids == pid) & (kinds == kind)].T
            axes.scatter(x, y, s=20, color=colour, marker=marker, linewidth=0.4, edgecolor=PAPER, alpha=0.9)
    handles = [
        axes.scatter([], [], s=22, color=FAINT, marker=marker, label=kind_names[k]) for k, marker in markers.items()
    ]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(8, len(handles)), handletextpad=0.1
    )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    axes.spines[:].set_visible(True)


def _name_ids(axes: Axes, points: np.ndarray, pids: np.ndarray, chosen: Sequence[int]) -> None:
    """The number of each identity in the middle of its points (n, 2)."""
    for pid, colour in zip(chosen, PALETTE, strict=False):
        x, y = np.median(points[pids == pid], axis=0)
        box = {"boxstyle": "round,pad=0.2", "facecolor": PAPER, "edgecolor": colour, "linewidth": 0.9, "alpha": 0.9}
        axes.text(x, y, str(pid), ha="center", va="center", color=INK, fontsize=7, bbox=box)
