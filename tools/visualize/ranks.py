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
    sample, shown = split.samples[split.query[query]], matches[:SHOWN]
    strips = Strips(subject, CELL, beside=False)
    width, height = strips.size
    sheet = Sheet(max(LEFT + (len(shown) + 1) * (width + GAP) + 0.24, 7.0), TOP + height + NOTE)
    sheet.title(LEFT, 0.12, f"Query {sample.name}", describe(subject, query, matches))
    for m, name in enumerate(MODALITIES):
        sheet.row_label(LEFT, TOP + (m + 0.5) / len(MODALITIES) * height, name)
    strips.draw(sheet, LEFT, TOP, split.query[query])
    for column, match in enumerate(shown, start=1):
        strips.draw(sheet, LEFT + 0.2 + column * (width + GAP), TOP, match.index, match)
    path = save(sheet.figure, folder / f"ranks_{query}_{Path(sample.name).stem}.png", dpi=dpi)
    distance = "re-ranked" if subject.ranking.reranked else "Euclidean"
    return Picture(path, f"Ranking for {sample.name}", CAPTION.format(group=split.protocol, distance=distance))


class Strips:
    """Draws samples of `subject`, each as a strip of all its images in one frame.

    Args:
        subject: a model and its test set.
        longer: inches of the longer side of an image.
        beside: put the images side by side instead of one below the other.
    """

    def __init__(self, subject: Subject, longer: float, *, beside: bool) -> None:
        self.subject = subject
        self.cell = cell_size(subject.display_hw, longer)
        self.steps = [m * (self.cell[1 - beside] + INNER) for m in range(len(MODALITIES))]
        self.beside = beside
        last = self.steps[-1]
        self.size = (last + self.cell[0], self.cell[1]) if beside else (self.cell[0], last + self.cell[1])
        """Width and height of a strip in inches."""

    def draw(self, sheet: Sheet, x: float, y: float, index: int, match: Match | None = None) -> None:
        """Draw sample `index` at (x, y), its rank above and its identity below; without a match it is the query."""
        for step, image in zip(self.steps, self.subject.pixels(index), strict=True):
            corner = (x + step, y) if self.beside else (x, y + step)
            show_image(sheet.axes(*corner, *self.cell), image)
        head, colour = "query", INK
        note = f"id {self.subject.split.samples[index].pid}\n{self.subject.group_name(index)}"
        if match is not None:
            head = f"{match.rank} \N{CHECK MARK}" if match.correct else f"{match.rank} \N{BALLOT X}"
            colour = CORRECT if match.correct else WRONG
            note += f"\nd {match.distance:.3f}"
        width, height = self.size
        sheet.frame(x, y, width, height, colour, dashed=colour == WRONG)
        style = {"ha": "center", "va": "baseline", "color": colour, "fontweight": "bold", "fontsize": 9}
        sheet.text(x + width / 2, y - 0.07, head, **style)
        sheet.text(x + width / 2, y + height + 0.07, note, ha="center", fontsize=6.5, color=FAINT)


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
