"""Losses, scores, learning rates and the other metrics of one run or several, over the epochs."""

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

Lines = dict[str, list[tuple[int, float]]]
"""(epoch, value) pairs by name."""

SCORES = {"mAP": "mAP (%)", "R1": "Rank-1 (%)"}
"""The metrics of an evaluation that are drawn, and the titles of their panels."""
RELATIVE = "relative_on_object"
"""The only metric of the selection that is not in percent."""
FIRST = ("total loss", "id loss", "triplet loss", *SCORES.values(), "learning rate")
"""The panels that come before all others."""
COLUMNS, PANEL = 3, (3.6, 2.4)  # inches
CAPTION_ONE = "From metrics.jsonl, with a line per quantity."
CAPTION_MANY = "From metrics.jsonl, with a colour per run and a dash pattern per quantity where a panel has several."


def draw_curves(folders: Sequence[Path], folder: Path, *, dpi: int) -> Picture:
    """Draw the picture of the runs in `folders`.

    Raises:
        UserError: one of them has no metrics.jsonl, or an empty one.
    """
    runs = {name: read_panels(path) for name, path in zip(short_names(folders), folders, strict=True)}
    panels = list(dict.fromkeys(panel for run in runs.values() for panel in run))
    rows, several = math.ceil(len(panels) / COLUMNS), len(runs) > 1
    figure = new_figure(COLUMNS * PANEL[0], rows * PANEL[1] + (0.5 if several else 0.3), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, [run.get(panel, {}) for run in runs.values()])
    for axes in grid[len(panels) :]:
        axes.remove()
    if several:
        styles = {name: {"color": _colour(i), "linewidth": 2} for i, name in enumerate(runs)}
        figure.legend(handles=_handles(styles), loc="outside upper left", ncols=4, fontsize=8)
    else:
        figure.suptitle(f"Training of {next(iter(runs))}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    path = save(figure, folder / "curves.png", dpi=dpi)
    return Picture(path, "Curves", CAPTION_MANY if several else CAPTION_ONE)


def read_panels(run: Path) -> dict[str, Lines]:
    """Read the curves of the run in folder `run`, by panel.

    Raises:
        UserError: it has no metrics.jsonl, or an empty one.
    """
    panels = gather(read_records(run / METRICS))
    if not panels:
        raise UserError(f"There are no records in {run / METRICS}. Give the OUTPUT_DIR of a run by --run.")
    return panels


def gather(records: Iterable[Mapping[str, Any]]) -> dict[str, Lines]:
    """Sort the numbers in the records of metrics.jsonl into panels."""
    panels: dict[str, Lines] = {}
    for record in records:
        for panel, name, value in _values(record):
            if math.isfinite(value):
                panels.setdefault(panel, {}).setdefault(name, []).append((record["epoch"], value))
    order = [*(panel for panel in FIRST if panel in panels), *(panel for panel in panels if panel not in FIRST)]
    return {panel: panels[panel] for panel in order}


def _values(record: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield panel, name and value of each number in a record that is drawn."""
    for name, value in record.get("losses", {}).items():
        kind, _, head = name.rpartition("/")
        yield (f"{kind} loss", head, value) if kind else (f"{name} loss", name, value)
    for descriptor, metrics in record.get("eval", {}).items():
        for metric, panel in SCORES.items():
            yield panel, descriptor, metrics[metric]
    for group, rate in record.get("lr", {}).items():
        yield "learning rate", group, rate
    for name, value in record.get("selection", {}).items():
        if name == RELATIVE:
            yield f"selection: {name.replace('_', ' ')}", "", value
        else:
            yield "selection (%)", name.replace("_", " "), value
    for name, value in record.get("sdtps", {}).items():
        yield f"sdtps: {name.replace('_', ' ')}", "", value


def short_names(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the last parts of its path, with the fewest parts that tell all of them apart.

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


def _draw_panel(axes: Axes, panel: str, runs: Sequence[Lines]) -> None:
    """Draw the lines of all runs, coloured by run, or by name if there is one run."""
    names = list(dict.fromkeys(name for lines in runs for name in lines))
    several = len(runs) > 1
    for i, lines in enumerate(runs):
        for name, points in lines.items():
            j = names.index(name)
            style = {"color": _colour(i if several else j), "dashes": DASHES[j % len(DASHES)], "linewidth": 1.4}
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 12 else "", markersize=2.5, **style)
    axes.set_title(panel)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", fontsize=7)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if panel == "learning rate":
        axes.set_yscale("log")
    if len(names) > 1:
        styles = {
            name: {"color": INK if several else _colour(j), "dashes": DASHES[j % len(DASHES)]}
            for j, name in enumerate(names)
        }
        axes.legend(handles=_handles(styles), handlelength=3)


def _handles(styles: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Make the lines of a legend."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=name, **style) for name, style in styles.items()]


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]
