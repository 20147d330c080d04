"""A query and the ten gallery images that come first, in all modalities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.sample import MODALITIES
from tools.visualize.gallery import Scene, spread
from tools.visualize.ranking import Match
from tools.visualize.sheet import Sheet, cell_size, show_image
from tools.visualize.style import CORRECT, FAINT, INK, WRONG, Picture, save

SHOWN = 10
CELL, GAP, ROW_GAP, LEFT, TOP, NOTE = 1.25, 0.16, 0.04, 0.55, 0.9, 0.56  # inches; NOTE is the text under a column
CAPTION = (
    "The query and the gallery images nearest to it, after the protocol has taken out those of its own identity in "
    "its own {view}. A full green frame and a tick is the same identity, a broken red one and a cross another. "
    "d is the Euclidean distance of the features."
)


def draw_ranks(scene: Scene, query: int, folder: Path, *, dpi: int) -> Picture:
    """The picture of the `query`-th query of the split."""
    split, ranking = scene.split, scene.ranking
    index = int(split.query[query])
    sample, matches = split.samples[index], ranking.matches(query)
    shown = matches[:SHOWN]

    width, height = cell_size(scene.display_hw, CELL)
    column_height = len(MODALITIES) * (height + ROW_GAP) - ROW_GAP
    x = [LEFT + column * (width + GAP) + (0.2 if column else 0.0) for column in range(len(shown) + 1)]
    sheet = Sheet(max(x[-1] + width + 0.2, 7.0), TOP + column_height + NOTE)
    sheet.title(LEFT, 0.12, f"Query {sample.name}", describe(scene, query, matches))
    for m, name in enumerate(MODALITIES):
        y = TOP + m * (height + ROW_GAP) + height / 2
        sheet.row_label(LEFT, y, name)
    for left, match in zip(x, [None, *shown], strict=True):
        where = index if match is None else match.index
        for m, image in enumerate(scene.pixels(where)):
            show_image(sheet.axes(left, TOP + m * (height + ROW_GAP), width, height), image)
        colour = INK if match is None else colour_of(match)
        sheet.frame(left, TOP, width, column_height, colour, dashed=match is not None and not match.correct)
        head = "query" if match is None else f"{match.rank} {mark_of(match)}"
        middle = left + width / 2
        sheet.text(middle, TOP - 0.07, head, ha="center", va="baseline", color=colour, fontweight="bold", fontsize=9)
        note = name_of(scene, where) + ("" if match is None else f"\nd {match.distance:.3f}")
        sheet.text(middle, TOP + column_height + 0.07, note, ha="center", fontsize=6.5, color=FAINT)
    path = save(sheet.figure, folder / f"ranks_{query}_{Path(sample.name).stem}.png", dpi=dpi)
    return Picture(path, f"Ranking for {sample.name}", CAPTION.format(view=split.protocol))


def spread_queries(by_ap: Sequence[int], count: int) -> list[int]:
    """`count` queries from bad to good, evenly spaced over `by_ap`, which is in the order of average precision."""
    return [by_ap[position] for position in spread(count, len(by_ap))]


def describe(scene: Scene, query: int, matches: Sequence[Match]) -> str:
    """Who the query is and how well it is found."""
    found = sum(match.correct for match in matches[:SHOWN])
    total = sum(match.correct for match in matches)
    ap = 100 * float(scene.ranking.ap[query])
    score = "no match in another view" if total == 0 else f"AP {ap:.1f} %"
    names = name_of(scene, int(scene.split.query[query])).replace("\n", ", ")
    return f"{names}; {score}; {found} of its {total} matches among the first {SHOWN}; feature '{scene.model.feat}'"


def name_of(scene: Scene, index: int) -> str:
    """Identity and camera or scene, as the protocol goes by, in two lines."""
    sample = scene.split.samples[index]
    view = f"camera {sample.camera + 1}" if scene.split.protocol == "camera" else f"scene {sample.scene}"
    return f"id {sample.pid}\n{view}"


def colour_of(match: Match) -> str:
    """Green for the same identity, red for another."""
    return CORRECT if match.correct else WRONG


def mark_of(match: Match) -> str:
    """The same without colour."""
    return "\N{CHECK MARK}" if match.correct else "\N{BALLOT X}"
