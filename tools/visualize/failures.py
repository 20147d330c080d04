"""The worst queries, what each was mistaken for, and where the first correct image stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.visualize.gallery import Scene
from tools.visualize.ranking import Match, mistaken_for
from tools.visualize.ranks import colour_of, mark_of, name_of
from tools.visualize.sheet import Sheet, cell_size, show_image
from tools.visualize.style import FAINT, INK, Picture, save
from utils.errors import UserError

WRONG_SHOWN = 5
CELL, GAP, INNER, LEFT, TOP, HEAD, NOTE = 1.05, 0.16, 0.03, 0.3, 0.72, 0.56, 0.3  # inches
NAMED = 4
"""Identities that a query is said to be mistaken for."""
CAPTION = (
    "The queries of lowest average precision. Beside each the nearest images of other identities and, last, its first "
    "correct one, with their ranks; RGB, NI and TI lie {direction}."
)


def draw_failures(scene: Scene, count: int, folder: Path, *, dpi: int) -> Picture:
    """The picture of the `count` worst queries.

    Raises:
        UserError: there is none, for every query has all its matches first.
    """
    split, ranking = scene.split, scene.ranking
    queries = [query for query in ranking.by_ap()[:count] if ranking.ap[query] < 1]
    if not queries:
        raise UserError("There are no failures: every query finds all its matches before anything else.")
    width, height = cell_size(scene.display_hw, CELL)
    beside = height >= width
    strip = (3 * width + 2 * INNER, height) if beside else (width, 3 * height + 2 * INNER)
    x = [LEFT + column * (strip[0] + GAP) + (0.15 if column else 0) for column in range(WRONG_SHOWN + 2)]
    x[-1] += 0.15
    row_height = HEAD + strip[1] + NOTE + 0.15
    sheet = Sheet(x[-1] + strip[0] + 0.2, TOP + len(queries) * row_height + 0.1)
    mean = 100 * float(ranking.ap.nanmean())
    sheet.title(
        LEFT, 0.12, f"The {len(queries)} worst of {len(ranking.by_ap())} queries",
        f"feature '{scene.model.feat}', mAP {mean:.1f} %",
    )  # fmt: skip
    for row, query in enumerate(queries):
        y = TOP + row * row_height
        index, matches = int(split.query[query]), ranking.matches(query)
        sheet.text(LEFT, y, split.samples[index].name, fontweight="bold")
        sheet.text(LEFT, y + 0.16, explain(matches, split.pids, float(ranking.ap[query])), fontsize=7.5, color=FAINT)
        for left, match in zip(x, [None, *pick(matches)], strict=False):
            where = index if match is None else match.index
            for m, image in enumerate(scene.pixels(where)):
                offset = (m * (width + INNER), 0.0) if beside else (0.0, m * (height + INNER))
                show_image(sheet.axes(left + offset[0], y + HEAD + offset[1], width, height), image)
            colour = INK if match is None else colour_of(match)
            dashed = match is not None and not match.correct
            sheet.frame(left, y + HEAD, *strip, colour, dashed=dashed)
            head = "query" if match is None else f"{match.rank} {mark_of(match)}"
            sheet.text(left, y + HEAD - 0.06, head, va="baseline", color=colour, fontweight="bold")
            note = name_of(scene, where).replace("\n", ", ") + ("" if match is None else f"\nd {match.distance:.3f}")
            sheet.text(left, y + HEAD + strip[1] + 0.05, note, fontsize=6.5, color=FAINT)
    path = save(sheet.figure, folder / "failures.png", dpi=dpi)
    direction = "side by side" if beside else "one below the other"
    return Picture(path, "Failures", CAPTION.format(direction=direction))


def pick(matches: Sequence[Match]) -> list[Match]:
    """The nearest wrong matches and then the first correct one."""
    wrong = [match for match in matches if not match.correct][:WRONG_SHOWN]
    return wrong + [match for match in matches if match.correct][:1]


def explain(matches: Sequence[Match], pids: Sequence[int], ap: float) -> str:
    """In words: how bad, where the first correct one stands, and whose images stand before it."""
    first = next(match.rank for match in matches if match.correct)
    text = f"AP {100 * ap:.1f} %; first correct at rank {first} of {len(matches)}"
    ahead = mistaken_for(matches, pids).most_common()
    if not ahead:
        return text
    named = ", ".join(f"id {pid} ({count})" for pid, count in ahead[:NAMED])
    more = len(ahead) - NAMED
    return f"{text}; before it {named}{f' and {more} other identities' if more > 0 else ''}"
