"""A query and the ten gallery images that are ranked first, in all modalities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.sample import MODALITIES
from tools.visualize.ranking import Match
from tools.visualize.sheet import Sheet, cell_size, show_image
from tools.visualize.style import CORRECT, FAINT, INK, WRONG, Picture, save
from tools.visualize.subject import Subject, spread

SHOWN = 10
CELL, GAP, INNER, LEFT, TOP, NOTE = 1.25, 0.16, 0.04, 0.55, 0.9, 0.56  # inches; NOTE is the text under a column
CAPTION = (
    "The query and the gallery images nearest to it, without those of its own identity and {group}, which the protocol "
    "ignores. A solid green frame and a tick mark the same identity, a dashed red frame and a cross another one. d is "
    "the {distance} distance of the descriptors."
)


def draw_ranks(subject: Subject, query: int, folder: Path, *, dpi: int) -> Picture:
    """Draw the picture of the `query`-th query of the split."""
    split, matches = subject.split, subject.ranking.matches(query)
    index = int(split.query[query])
    sample, shown = split.samples[index], matches[:SHOWN]
    cell = cell_size(subject.display_hw, CELL)
    width, height = strip_size(cell, beside=False)
    sheet = Sheet(max(LEFT + (len(shown) + 1) * (width + GAP) + 0.24, 7.0), TOP + height + NOTE)
    sheet.title(LEFT, 0.12, f"Query {sample.name}", describe(subject, query, matches))
    for m, name in enumerate(MODALITIES):
        sheet.row_label(LEFT, TOP + m * (cell[1] + INNER) + cell[1] / 2, name)
    draw_strip(sheet, subject, index, LEFT, TOP, cell, match=None, beside=False)
    for column, match in enumerate(shown, start=1):
        x = LEFT + 0.2 + column * (width + GAP)
        draw_strip(sheet, subject, match.index, x, TOP, cell, match=match, beside=False)
    path = save(sheet.figure, folder / f"ranks_{query}_{Path(sample.name).stem}.png", dpi=dpi)
    distance = "re-ranked" if subject.ranking.reranked else "Euclidean"
    return Picture(path, f"Ranking for {sample.name}", CAPTION.format(group=split.protocol, distance=distance))


def strip_size(cell: tuple[float, float], *, beside: bool) -> tuple[float, float]:
    """Compute the width and height in inches of a sample's images side by side (`beside`) or one below the other."""
    width, height = cell
    count = len(MODALITIES)
    if beside:
        return count * (width + INNER) - INNER, height
    return width, count * (height + INNER) - INNER


def draw_strip(
    sheet: Sheet,
    subject: Subject,
    index: int,
    x: float,
    y: float,
    cell: tuple[float, float],
    *,
    match: Match | None,
    beside: bool,
) -> None:
    """Draw a sample's images in one frame, with its rank above and its identity, group and distance below.

    Args:
        sheet: the sheet to draw on.
        subject: the model and its test set.
        index: the sample's position in the split.
        x: left edge of the frame in inches.
        y: upper edge of the frame in inches.
        cell: width and height of one image in inches.
        match: its place in the ranking; None for the query.
        beside: put the images side by side, or else one below the other.
    """
    for m, image in enumerate(subject.pixels(index)):
        right, down = (m * (cell[0] + INNER), 0.0) if beside else (0.0, m * (cell[1] + INNER))
        show_image(sheet.axes(x + right, y + down, *cell), image)
    head, colour, note = "query", INK, [f"id {subject.split.samples[index].pid}", subject.group_name(index)]
    if match is not None:
        head = f"{match.rank} \N{CHECK MARK}" if match.correct else f"{match.rank} \N{BALLOT X}"
        colour = CORRECT if match.correct else WRONG
        note.append(f"d {match.distance:.3f}")
    width, height = strip_size(cell, beside=beside)
    sheet.frame(x, y, width, height, colour, dashed=colour == WRONG)
    middle = x + width / 2
    sheet.text(middle, y - 0.07, head, ha="center", va="baseline", color=colour, fontweight="bold", fontsize=9)
    sheet.text(middle, y + height + 0.07, "\n".join(note), ha="center", fontsize=6.5, color=FAINT)


def spread_queries(by_ap: Sequence[int], count: int) -> list[int]:
    """Choose `count` queries from bad to good, evenly spaced over `by_ap`, which is ordered by average precision."""
    return [by_ap[position] for position in spread(count, len(by_ap))]


def describe(subject: Subject, query: int, matches: Sequence[Match]) -> str:
    """Say who the query is and how well it is found."""
    index = int(subject.split.query[query])
    found, total = (sum(match.correct for match in part) for part in (matches[:SHOWN], matches))
    score = (
        f"AP {100 * float(subject.ranking.ap[query]):.1f} %"
        if total
        else f"no match in another {subject.split.protocol}"
    )
    return (
        f"id {subject.split.samples[index].pid}, {subject.group_name(index)}; {score}; {found} of its {total} matches "
        f"among the first {SHOWN}; descriptor '{subject.descriptor}'"
    )
