"""Losses, scores, learning rates and what else the records of one or several runs hold, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.run_folder import METRICS, read_records
from tools.visualize.style import DASHES, INK, PALETTE, Picture, new_figure, save
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, dict[str, list[tuple[int, float]]]]
"""By panel and by name within it: (epoch, value) pairs."""

FIGURES = {"mAP": "mAP (%)", "R1": "Rank-1 (%)"}
"""Those of an evaluation that are drawn, and the titles of their panels."""
COLUMNS, PANEL = 3, (3.6, 2.4)  # inches
CAPTION_ONE = "From metrics.jsonl, a line per quantity."
CAPTION_MANY = "From metrics.jsonl: a colour per run, a kind of line per quantity where a panel has several."


def draw_curves(folders: Sequence[Path], folder: Path, *, dpi: int) -> Picture:
    """The picture of the runs in `folders`.

    Raises:
        UserError: one of them has no metrics.jsonl, or an empty one.
    """
    runs = {name: read_series(path) for name, path in zip(short_names(folders), folders, strict=True)}
    panels = list(dict.fromkeys(panel for series in runs.values() for panel in series))
    rows = math.ceil(len(panels) / COLUMNS)
    several = len(runs) > 1
    figure = new_figure(COLUMNS * PANEL[0], rows * PANEL[1] + (0.5 if several else 0.3), layout="constrained")
    axes_of = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(axes_of, panels, strict=False):
        _draw_panel(axes, panel, {name: series.get(panel, {}) for name, series in runs.items()})
    for axes in axes_of[len(panels) :]:
        axes.remove()
    if several:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=_colour(i), linewidth=2, label=name) for i, name in enumerate(runs)]
        figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=8)
    else:
        figure.suptitle(f"Training of {next(iter(runs))}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    path = save(figure, folder / "curves.png", dpi=dpi)
    return Picture(path, "Curves", CAPTION_MANY if several else CAPTION_ONE)


def read_series(run: Path) -> Series:
    """The curves of the run in folder `run`.

    Raises:
        UserError: it has no metrics.jsonl, or an empty one.
    """
    series = gather(read_records(run / METRICS))
    if not series:
        raise UserError(f"There are no records in {run / METRICS}. Give the OUTPUT_DIR of a run by --run.")
    return series


def gather(records: Iterable[Mapping[str, Any]]) -> Series:
    """Sort the numbers of metrics.jsonl's records into panels."""
    series: Series = {}
    for record in records:
        for panel, name, value in _values(record):
            if math.isfinite(value):
                series.setdefault(panel, {}).setdefault(name, []).append((record["epoch"], value))
    order = [*(f"{kind} loss" for kind in ("total", "id", "triplet")), *FIGURES.values(), "learning rate"]
    return {
        panel: series[panel] for panel in sorted(series, key=lambda p: order.index(p) if p in order else len(order))
    }


def _values(record: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Panel, name and value of each number in a record that is drawn."""
    for name, value in record.get("losses", {}).items():
        kind, _, head = name.rpartition("/")
        yield (f"{kind} loss", head, value) if kind else (f"{name} loss", name, value)
    for pattern, scores in record.get("eval", {}).items():
        for figure, panel in FIGURES.items():
            yield panel, pattern, scores[figure]
    for group, rate in record.get("lr", {}).items():
        yield "learning rate", group, rate
    for name, value in record.get("selection", {}).items():
        yield "selection (%)", name.replace("_", " "), value
    for name, value in record.get("sdtps", {}).items():
        yield f"sdtps: {name.replace('_', ' ')}", "", value


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each folder's path, and as many before it as are needed to tell them apart.

    Raises:
        UserError: a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise UserError(f"--run names a folder twice: {', '.join(map(str, folders))}.")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _draw_panel(axes: Axes, panel: str, runs: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> None:
    names = list(dict.fromkeys(name for lines in runs.values() for name in lines))
    several = len(runs) > 1
    for i, lines in enumerate(runs.values()):
        for j, name in enumerate(names):
            if name not in lines:
                continue
            epochs, values = zip(*lines[name], strict=True)
            axes.plot(
                epochs, values, color=_colour(i if several else j), linewidth=1.4,
                dashes=DASHES[j % len(DASHES)], marker="o" if len(epochs) < 12 else "", markersize=2.5,
            )  # fmt: skip
    axes.set_title(panel)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", fontsize=7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if panel == "learning rate":
        axes.set_yscale("log")
    if len(names) > 1:
        from matplotlib.lines import Line2D

        styles = [
            {"color": INK if several else _colour(j), "dashes": DASHES[j % len(DASHES)]} for j in range(len(names))
        ]
        axes.legend(
            handles=[Line2D([], [], label=n, **style) for n, style in zip(names, styles, strict=True)], handlelength=3
        )


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]
