"""A picture in the form of a table: a row for each modality, and columns of images and maps of patches, in groups.

Shapes: H, W pixels of an image, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tools.visualize.sheet import Sheet, cell_size, outline, show_image, show_map
from tools.visualize.style import FAINT

CELL, GAP, LEFT, TOP, BOTTOM = 1.9, 0.12, 0.5, 1.0, 0.55  # inches
NARROWEST = 0.98
"""Inches that a column takes at least, so that the notes of neighbours do not touch."""
NOTE_SIZE, NOTE_LINE = 6.5, 0.12
"""Of the text under a cell: its size in points and the height of a line in inches."""
LONGEST_BAR = 2.0  # inches


@dataclass(frozen=True)
class Scale:
    """The colours of a map of patches. Columns next to each other that have the same one share a colour bar."""

    cmap: str
    low: float
    high: float
    label: str
    """Stands under the colour bar."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of cells, one for each modality."""

    head: str = ""
    cells: Sequence[np.ndarray | None]
    """With `scale` values (N,) by patch, of which nan is left blank; without it images (H, W, 3) uint8. Those of an
    absent modality are not looked at."""
    notes: Sequence[str] = ()
    """Stand under the cells."""
    scale: Scale | None = None
    outlined: bool = True
    """Draw the outline of the object."""


@dataclass(frozen=True)
class Group:
    """Columns with a heading above them."""

    head: str
    columns: Sequence[Column]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the cells of a table have in common, apart from its columns.

    Args:
        title, subtitle: stand above it.
        rows: the names of the modalities, and of each whether it is present.
        grid: rows and columns of patches in an image.
        size_hw: height and width of an image in pixels.
        mask: (H, W) in [0, 1], where the object is; None: it is not known.
    """

    title: str
    subtitle: str
    rows: Sequence[tuple[str, bool]]
    grid: tuple[int, int]
    size_hw: tuple[int, int]
    mask: np.ndarray | None

    def draw(self, groups: Sequence[Group]) -> Sheet:
        """Draw the table on a new sheet."""
        width, height = cell_size(self.size_hw, CELL)
        column_width = max(width, NARROWEST)
        notes = (note for group in groups for column in group.columns for note in column.notes)
        pitch = height + 0.1 + NOTE_LINE * max((note.count("\n") + 1 for note in notes), default=0)
        bottom = TOP + len(self.rows) * pitch
        placed = list(self._place(groups, column_width + GAP))
        sheet = Sheet(max(placed[-1][0] + column_width + 0.2, 6.0), bottom + BOTTOM)
        sheet.title(LEFT, 0.12, self.title, self.subtitle)
        for m, (name, _) in enumerate(self.rows):
            sheet.row_label(LEFT, TOP + m * pitch + height / 2, name)
        last_scale = None
        for left, head, column in placed:
            sheet.text(left, TOP - 0.22, head, va="baseline", fontweight="bold")
            sheet.text(left, TOP - 0.07, column.head, va="baseline")
            drawn = self._draw_cells(sheet, column, left, pitch, (width, height))
            if column.scale is not None and column.scale is not last_scale:
                shared = sum(other.scale is column.scale for _, _, other in placed)
                length = min(shared * (column_width + GAP) - GAP, LONGEST_BAR)
                sheet.colour_bar(drawn, left, bottom + 0.05, length, column.scale.label)
            last_scale = column.scale
        return sheet

    @staticmethod
    def _place(groups: Sequence[Group], pitch: float) -> Iterator[tuple[float, str, Column]]:
        """Yield the left edge of each column in inches, the heading of a group above its first one, and the column."""
        left = LEFT
        for group in groups:
            for i, column in enumerate(group.columns):
                yield left, group.head if i == 0 else "", column
                left += pitch
            left += GAP

    def _draw_cells(
        self, sheet: Sheet, column: Column, left: float, pitch: float, size: tuple[float, float]
    ) -> object | None:
        """Draw the cells of a column and their notes, and return what its colour bar takes."""
        drawn, scale = None, column.scale
        for m, ((_, present), cell) in enumerate(zip(self.rows, column.cells, strict=True)):
            top = TOP + m * pitch
            axes = sheet.axes(left, top, *size)
            if not present:
                show_image(axes, None)
                continue
            if scale is None:
                show_image(axes, cell)
            else:
                drawn = show_map(axes, cell, self.grid, self.size_hw, scale.cmap, vmin=scale.low, vmax=scale.high)
            if column.outlined:
                outline(axes, self.mask)
            if column.notes:
                note = column.notes[m]
                sheet.text(left, top + size[1] + 0.04, note, fontsize=NOTE_SIZE, color=FAINT)
        return drawn
