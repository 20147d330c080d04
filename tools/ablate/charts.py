"""Draw the pictures of a report: differences with their intervals, and curves with bands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.ablate.summary import Summary
from tools.ablate.words import difference
from tools.visualize.style import CORRECT, DASHES, FAINT, INK, PALETTE, WRONG, new_figure
from utils.files import atomic_write

VERDICT_COLOURS = {"higher": CORRECT, "lower": WRONG}


def draw_differences(summary: Summary, path: Path) -> bool:
    """Draw every variant's difference to the reference in the mAP of the embedding after the last epoch.

    Returns:
        Whether there was anything to draw.
    """
    found = [c for v in summary.sweep.variants if (c := summary.find(v.name)) and c.difference]
    if not found:
        return False
    with _picture(path, 7.5, 0.9 + 0.34 * len(found)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=FAINT, linewidth=1)
        for y, comparison in enumerate(found):
            pair, colour = comparison.difference, VERDICT_COLOURS.get(comparison.verdict, INK)
            axes.scatter([*pair.by_seed.values()], [y + 0.25] * len(pair.by_seed), s=9, color=FAINT)
            if pair.low is not None:
                error = [[pair.mean - pair.low], [pair.high - pair.mean]]
                axes.errorbar(pair.mean, y, xerr=error, color=colour, linewidth=2, capsize=3)
            axes.plot(pair.mean, y, marker="o", markersize=6, color=colour)
            axes.annotate(
                difference(pair), (1, y), xycoords=axes.get_yaxis_transform(), xytext=(6, 0),
                textcoords="offset points", va="center", color=colour, annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(range(len(found)), [_shorten(comparison.variant) for comparison in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"mAP minus that of {summary.sweep.reference} on the same seed: mean, 95 % interval and seeds")
    return True


def draw_curves(summary: Summary, path: Path) -> bool:
    """Draw the mAP of the embedding and the total loss by epoch, as mean and standard deviation over the seeds.

    Returns:
        Whether there was anything to draw.
    """
    if summary.curves.empty:
        return False
    with _picture(path, 8.5, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        _draw_quantity(summary, left, "mAP", "mAP of the embedding, %")
        _draw_quantity(summary, right, "loss", "total training loss")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, handlelength=3)
    return True


def _draw_quantity(summary: Summary, axes: Axes, quantity: str, title: str) -> None:
    """Draw one line per variant; the reference is grey and lies below the others."""
    others = [variant.name for variant in summary.sweep.variants if variant.name != summary.sweep.reference]
    for i, name in enumerate([summary.sweep.reference, *others]):
        wanted = (summary.curves["variant"] == name) & (summary.curves["quantity"] == quantity)
        curve = summary.curves[wanted]
        colour, dashes = (
            (FAINT, ()) if i == 0 else (PALETTE[(i - 1) % len(PALETTE)], DASHES[(i - 1) // len(PALETTE) % len(DASHES)])
        )
        mean, std = curve["mean"], curve["std"].fillna(0)
        axes.plot(curve["epoch"], mean, color=colour, dashes=dashes, linewidth=1.6, label=_shorten(name))
        axes.fill_between(curve["epoch"], mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(True)
    axes.set_axisbelow(True)


def _shorten(name: str, longest: int = 40) -> str:
    """Cut the middle out of a long name, because the ends tell the variants of a grid apart."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


@contextmanager
def _picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, and write it as SVG; equal figures give equal bytes."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ablate"}):
        figure = new_figure(width, height, layout="constrained")
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", "sans-serif"]  # the text is drawn by the reader's browser
        yield figure
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
