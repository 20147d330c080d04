"""A sheet on which everything is placed in inches from its top left corner, and images and maps of patches for it.

Shapes: H, W pixels of an image, h, w the grid of patches, N = h w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.visualize.style import ABSENT, FAINT, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIMMED = 0.22
"""The share of its contrast that a dropped patch keeps."""
SHORT_BAR = 1.5
"""Inches below which a colour bar has numbers at its ends only."""
MIST = (196, 206, 226)
"""The colour that dropped patches fade to: a pale blue, on which bright, dark and grey patches all stand out."""
GROUND = 0.7
"""The share of its brightness that an image under a map keeps."""


class Sheet:
    """A matplotlib figure of `width` x `height` inches."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = new_figure(width, height)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Make axes without ticks and frame in the box whose top left corner is (x, y)."""
        axes = self.figure.add_axes(self._box(x, y, width, height))
        axes.set_axis_off()
        return axes

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        """Write `text` with its anchor at (x, y); the anchor is top left unless `ha` and `va` say otherwise."""
        style = {"ha": "left", "va": "top", "color": INK, "linespacing": 1.3} | options
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def title(self, x: float, y: float, title: str, subtitle: str) -> None:
        """Write a headline and a line of explanation under it, 0.45 inches in all."""
        self.text(x, y, title, fontsize=11, fontweight="bold")
        self.text(x, y + 0.23, subtitle, fontsize=8, color=FAINT)

    def row_label(self, x: float, y: float, text: str) -> None:
        """Write the name of a row upright, left of `x` and centred at height `y`."""
        self.text(x - 0.12, y, text, ha="right", va="center", rotation=90, fontsize=10, fontweight="bold")

    def frame(self, x: float, y: float, width: float, height: float, colour: str, *, dashed: bool = False) -> None:
        """Draw a frame around a box."""
        from matplotlib.patches import Rectangle

        box = self._box(x, y, width, height)
        self.figure.add_artist(
            Rectangle(
                box[:2], *box[2:], fill=False, edgecolor=colour, linewidth=2.2,
                linestyle=(0, (4, 1.6)) if dashed else "-", transform=self.figure.transFigure,
            )
        )  # fmt: skip

    def colour_bar(self, mappable: Any, x: float, y: float, width: float, label: str) -> None:
        """Draw a flat horizontal colour bar with its label below, 0.45 inches in all.

        A short one has a number at each end, set inwards, because those in between would run into each other.
        """
        from matplotlib.cm import ScalarMappable

        bar_axes = self.figure.add_axes(self._box(x, y, width, 0.09))
        opaque = ScalarMappable(mappable.norm, mappable.cmap)
        bar = self.figure.colorbar(opaque, cax=bar_axes, orientation="horizontal")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2, pad=1.5)
        if width < SHORT_BAR:
            ends = mappable.norm.vmin, mappable.norm.vmax
            bar.set_ticks(ends, labels=short_numbers(*ends))
            for number, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
                number.set_horizontalalignment(side)
        else:
            bar.ax.locator_params(nbins=3)
        bar.set_label(label, fontsize=7, labelpad=2)

    def _box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        bottom = self.height - y - height
        return x / self.width, bottom / self.height, width / self.width, height / self.height


def short_numbers(low: float, high: float) -> tuple[str, str]:
    """Write the ends of a range with as many decimals as tell hundredths of it apart, and at most five."""
    decimals = min(max(2 - math.floor(math.log10(high - low)), 0), 5) if high > low else 2
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def cell_size(size_hw: tuple[int, int], longer: float) -> tuple[float, float]:
    """Compute width and height in inches of an image whose longer side takes `longer`."""
    scale = longer / max(size_hw)
    return size_hw[1] * scale, size_hw[0] * scale


def show_image(axes: Axes, image: np.ndarray | None) -> None:
    """Show an image (H, W, 3) uint8 on the whole of `axes`, or for None, an absent modality, a frame that says so."""
    if image is not None:
        axes.imshow(image, aspect="auto", interpolation="lanczos")
        return
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[], facecolor=ABSENT)
    for spine in axes.spines.values():
        spine.set(visible=True, linestyle=(0, (3, 2)))
    axes.text(0.5, 0.5, "absent", ha="center", va="center", fontsize=7, color=FAINT, transform=axes.transAxes)


def show_map(
    axes: Axes, values: np.ndarray, grid: tuple[int, int], size_hw: tuple[int, int], cmap: str, **options: Any
) -> Any:
    """Show values (N,) by patch on an image of `size_hw`, nan left blank; returns what `Sheet.colour_bar` takes."""
    from matplotlib import colormaps

    height, width = size_hw
    return axes.imshow(
        values.reshape(grid), aspect="auto", interpolation="nearest", extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        cmap=colormaps[cmap].with_extremes(bad=ABSENT), **options,
    )  # fmt: skip


def outline(axes: Axes, mask: np.ndarray | None) -> None:
    """Draw the contour of `mask` (H, W) in [0, 1], white on black so that it shows on any ground; nothing for None."""
    if mask is not None and mask.min() < 0.5 < mask.max():
        axes.contour(mask, levels=[0.5], colors="#000000", linewidths=1.5)
        axes.contour(mask, levels=[0.5], colors="#ffffff", linewidths=0.7)


def kept_patches(indices: Sequence[int] | np.ndarray, num_patches: int) -> np.ndarray:
    """Turn kept indices (S,) into a mask (N,) bool."""
    kept = np.zeros(num_patches, bool)
    kept[np.asarray(indices)] = True
    return kept


def to_pixels(values: np.ndarray, grid: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Give each pixel (H, W) the value, out of (N,), of the cell of the grid that it lies in."""
    rows, columns = (np.arange(size) * cells // size for size, cells in zip(size_hw, grid, strict=True))
    return values.reshape(grid)[rows[:, None], columns]


def dim_dropped(image: np.ndarray, kept: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Fade the patches of an image (H, W, 3) uint8 that are not `kept` (N,) bool to MIST."""
    shown = to_pixels(kept, grid, image.shape[:2])[..., None]
    faded = np.array(MIST) + DIMMED * (image - np.array(MIST, float))
    return np.where(shown, image, faded.round().astype(np.uint8))


def grey_ground(image: np.ndarray) -> np.ndarray:
    """Turn an image (H, W, 3) uint8 into darkened grey, the ground for a coloured map."""
    luma = (GROUND * image @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)
