"""Two charts as SVG text: differences with their intervals, and curves with bands.

Drawn here and not with matplotlib because the colours are CSS variables: the same picture follows the reader's light or
dark theme, prints in black on white, shows exact figures on hover, and needs nothing installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

NUM_COLOURS = 7
LIGHT = {
    "page": "#fafaf8", "card": "#ffffff", "ink": "#1d2025", "soft": "#626872", "line": "#e2e3e1", "accent": "#0b62b8",
    "good": "#0a7a43", "bad": "#b3361e", "warn": "#8a5a00", "warn-page": "#fdf5e3",
    "c0": "#7b818c", "c1": "#0b6cb8", "c2": "#cf5300", "c3": "#00875f", "c4": "#b5478b", "c5": "#9a7400",
    "c6": "#2a9fd0", "c7": "#7a4fd6",
}  # fmt: skip
DARK = {
    "page": "#14161a", "card": "#1c1f24", "ink": "#e7e9ec", "soft": "#9aa1ac", "line": "#31353c", "accent": "#6cb4ff",
    "good": "#4cc98a", "bad": "#ff8a70", "warn": "#e8b64c", "warn-page": "#2a2415",
    "c0": "#a0a6b0", "c1": "#56aef5", "c2": "#ff9050", "c3": "#3fcf9c", "c4": "#ee8cc4", "c5": "#e0bb3c",
    "c6": "#7fd4fa", "c7": "#b39bff",
}  # fmt: skip
STYLE = """
svg.chart { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
svg.chart text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg.chart .soft { fill: var(--soft); }
svg.chart .title { font-weight: 600; font-size: 13px; }
svg.chart .grid { stroke: var(--line); stroke-width: 1; }
svg.chart .zero { stroke: var(--soft); stroke-width: 1.5; }
svg.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg.chart .band { opacity: 0.15; stroke: none; }
svg.chart .bar { stroke-width: 3; stroke-linecap: round; }
svg.chart .tip { opacity: 0; }
svg.chart .tip:hover { opacity: 1; }
svg.chart .seed { fill: var(--soft); opacity: 0.55; }
"""


def theme() -> str:
    """CSS that sets the colours: light, dark where the reader prefers it, and light on paper."""
    light, dark = ("".join(f"--{name}:{value};" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return f":root{{color-scheme:light dark;{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def colour(index: int) -> str:
    """The colour of a series; 0 is grey and the reference's."""
    return f"var(--c{(index - 1) % NUM_COLOURS + 1 if index else 0})"


@dataclass(frozen=True)
class Series:
    """A curve with its spread."""

    name: str
    colour: int
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float | None]


@dataclass(frozen=True)
class Interval:
    """A difference, its interval, and the single pairs behind it."""

    name: str
    mean: float
    low: float | None
    high: float | None
    points: Sequence[float] = ()
    verdict: str = ""
    label: str = ""


@dataclass
class Canvas:
    """SVG elements in order, in pixels from the top left."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, text: str = "", tip: str = "", **attributes: Any) -> None:
        """An element; `_` in names stands for `-`, and a trailing one is dropped (class_)."""
        pairs = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{round(value, 1) if isinstance(value, float) else value}"'
            for name, value in attributes.items()
        )
        inner = escape(text) + (f"<title>{escape(tip)}</title>" if tip else "")
        self.parts.append(f"<{tag}{pairs}>{inner}</{tag}>")

    def render(self, label: str, *, standalone: bool) -> str:
        """The picture; `standalone` brings its own colours, for a file that is not part of a page."""
        style = f"<style>{theme()}{STYLE}</style>" if standalone else ""
        pad = 20 if standalone else 0
        box = f"{-pad} {-pad} {self.width + 2 * pad} {self.height + 2 * pad}"
        back = f'<rect x="{-pad}" y="{-pad}" width="100%" height="100%" fill="var(--card)"/>' if standalone else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{escape(label)}" '
            f'viewBox="{box}" width="{self.width + 2 * pad}">{style}{back}{"".join(self.parts)}</svg>'
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from within [low, high], about `count` of them."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def intervals(rows: Sequence[Interval], *, title: str, standalone: bool = False) -> str:
    """Differences on one axis around a line at zero: a dot for the mean, a bar for the interval, a speck per seed."""
    left, right, top, pitch = _label_width([row.name for row in rows], 40), 220, 34, 34
    canvas = Canvas(960, top + pitch * len(rows) + 26)
    values = [0.0, *(v for row in rows for v in (row.mean, row.low, row.high, *row.points) if v is not None)]
    margin = 0.06 * ((max(values) - min(values)) or 1.0)
    low, high = min(values) - margin, max(values) + margin
    bottom = top + pitch * len(rows)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (canvas.width - left - right)

    canvas.add("text", title, x=0, y=14, class_="title")
    for tick in ticks(low, high, 8):
        canvas.add("line", x1=at(tick), x2=at(tick), y1=top, y2=bottom, class_="zero" if tick == 0 else "grid")
        canvas.add("text", f"{tick:+g}".replace("-", "−") if tick else "0", x=at(tick), y=bottom + 18,
                   text_anchor="middle", class_="soft")  # fmt: skip
    for i, row in enumerate(rows):
        y = top + pitch * (i + 0.5)
        tone = {"higher": "var(--good)", "lower": "var(--bad)", "uncorrected": "var(--warn)"}.get(
            row.verdict, "var(--c0)"
        )
        canvas.add("text", _shorten(row.name, 40), tip=row.name, x=left - 12, y=y + 4, text_anchor="end")
        for point in row.points:
            canvas.add(
                "circle", tip=f"{row.name}, one seed: {point:+.2f}", cx=at(point), cy=y + 9, r=2.2, class_="seed"
            )
        if row.low is not None and row.high is not None:
            canvas.add("line", x1=at(row.low), x2=at(row.high), y1=y, y2=y, class_="bar", stroke=tone, opacity=0.55)
        canvas.add("circle", tip=f"{row.name}: {row.label}", cx=at(row.mean), cy=y, r=5.0, fill=tone)
        canvas.add("text", row.label, x=canvas.width - right + 16, y=y + 4)
    return canvas.render(title, standalone=standalone)


def curves(series: Sequence[Series], *, title: str, standalone: bool = False) -> str:
    """Means as lines, mean ± std as bands, epochs along the axis, names at the ends of the lines."""
    left, right, top, bottom = 44, _label_width([line.name for line in series], 28), 34, 296
    canvas = Canvas(620, 340)
    canvas.add("text", title, x=0, y=14, class_="title")
    series = [line for line in series if line.x]
    if not series:
        canvas.add("text", "no finished run", x=left, y=80, class_="soft")
        return canvas.render(title, standalone=standalone)
    bands = [(m - (s or 0), m + (s or 0)) for line in series for m, s in zip(line.mean, line.std, strict=True)]
    low, high = min(b[0] for b in bands), max(b[1] for b in bands)
    margin = 0.04 * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    first, last = min(line.x[0] for line in series), max(line.x[-1] for line in series)

    def across(x: float) -> float:
        return left + (x - first) / ((last - first) or 1) * (canvas.width - left - right)

    def up(y: float) -> float:
        return bottom - (y - low) / (high - low) * (bottom - top)

    for tick in ticks(low, high, 6):
        canvas.add("line", x1=left, x2=canvas.width - right, y1=up(tick), y2=up(tick), class_="grid")
        canvas.add("text", f"{tick:g}", x=left - 8, y=up(tick) + 4, text_anchor="end", class_="soft")
    for tick in ticks(first, last, 6):
        if tick == int(tick):
            canvas.add("text", f"{tick:g}", x=across(tick), y=bottom + 18, text_anchor="middle", class_="soft")
    middle = (left + canvas.width - right) / 2
    canvas.add("text", "epoch", x=middle, y=bottom + 36, text_anchor="middle", class_="soft")
    for line in series:
        upper = [(across(x), up(m + (s or 0))) for x, m, s in zip(line.x, line.mean, line.std, strict=True)]
        lower = [(across(x), up(m - (s or 0))) for x, m, s in zip(line.x, line.mean, line.std, strict=True)]
        canvas.add("polygon", points=_points([*upper, *reversed(lower)]), class_="band", fill=colour(line.colour))
    for line in series:
        points = [(across(x), up(m)) for x, m in zip(line.x, line.mean, strict=True)]
        dash = {} if line.colour <= NUM_COLOURS else {"stroke_dasharray": "6 3"}
        canvas.add(
            "polyline", tip=line.name, points=_points(points), class_="curve", stroke=colour(line.colour), **dash
        )
        for (x, y), epoch, mean, std in zip(points, line.x, line.mean, line.std, strict=True):
            spread = "" if std is None else f" ± {std:.2f}"
            tip = f"{line.name}, epoch {epoch:g}: {mean:.2f}{spread}"
            canvas.add("circle", tip=tip, cx=x, cy=y, r=4.0, class_="tip", fill=colour(line.colour))
    ends = [up(line.mean[-1]) for line in series]
    for line, y in zip(series, _spread(ends, 15.0, top, bottom), strict=True):
        style = f"fill:{colour(line.colour)}"  # a style, for the page's rule on text would win over an attribute
        canvas.add("text", _shorten(line.name, 28), tip=line.name, x=canvas.width - right + 10, y=y + 4, style=style)
    return canvas.render(title, standalone=standalone)


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> Iterator[float]:
    """Heights as near to those wanted as a distance of `gap` between labels allows, in the order given."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], placed[-1] + gap) if placed else max(wanted[i], low))
    ceiling = high
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], ceiling)
        ceiling = placed[k] - gap
    heights = dict(zip(order, placed, strict=True))
    return (heights[i] for i in range(len(wanted)))


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _label_width(names: Sequence[str], longest: int) -> int:
    """Pixels that the longest name takes, cut to `longest` characters, with a margin."""
    return 28 + round(7.4 * max((min(len(name), longest) for name in names), default=0))


def _shorten(name: str, length: int) -> str:
    """The two ends of a name, for those of a grid end on a value."""
    if len(name) <= length:
        return name
    return f"{name[: (length - 1) // 2]}…{name[-(length // 2) :]}"
