"""The look of all charts and pictures: colours that colour-blind readers can tell apart, one font, one way to save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.extras import import_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#222222", "#767676", "#ffffff"
ABSENT = "#efefef"
CORRECT, WRONG = "#009e73", "#d55e00"
"""Bluish green and vermilion (Okabe and Ito), always used with a mark that says the same."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333", "#a6951c")
"""The colours of Okabe and Ito, with a darker yellow that shows on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (3, 1), (8, 3))
SCORE_MAP, WEIGHT_MAP = "viridis", "magma"
"""Colour maps with equal steps in lightness, where dark is low."""
LEAST_PEAK = 2.0
"""Scales on which 1 is an even share reach at least this far, so that an even map is not all bright."""

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b0b0b0",
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.facecolor": PAPER,
}


@dataclass(frozen=True)
class Picture:
    """A picture that has been written."""

    path: Path
    title: str
    caption: str
    """Explains in a sentence or two how to read it."""


def new_figure(width: float, height: float, *, layout: str | None = None) -> Figure:
    """Make an empty figure of this size in inches; it needs no display.

    Raises:
        UserError: matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", "The drawing of charts")
    figure_module = import_extra("matplotlib.figure", "The drawing of charts")
    matplotlib.rcParams.update(_RC)
    return figure_module.Figure(figsize=(width, height), layout=layout)


def save(figure: Figure, path: Path, *, dpi: int) -> Path:
    """Write `figure` as a PNG of `dpi` pixels per inch; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    return path
