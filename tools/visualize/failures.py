"""The worst queries, what each was mistaken for, and the rank of its first correct image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.visualize.ranking import Match, mistaken_for
from tools.visualize.ranks import Strips
from tools.visualize.sheet import Sheet
from tools.visualize.style import FAINT, Picture, save
from tools.visualize.subject import Subject
from utils.errors import UserError

WRONG_SHOWN = 5
CELL, GAP, LEFT, TOP, HEAD, NOTE = 1.05, 0.16, 0.3, 0.72, 0.56, 0.5  # inches
NAMED = 4
"""How many of the identities that a query is mistaken for are named."""
CAPTION = (
    "The queries of lowest average precision. Next to each are the nearest images of other identities and, last, its "
    "first correct image, with their ranks; RGB, NI and TI are {direction}."
)


def draw_failures(subject: Subject, count: int, folder: Path, *, dpi: int) -> Picture:
    """Draw the picture of the `count` worst queries.

    Raises:
        UserError: every query has all its matches first.
    """
    split, ranking = subject.split, subject.ranking
    queries = [query for query in ranking.by_ap()[:count] if ranking.ap[query] < 1]
    if not queries:
        raise UserError("There are no failures: every query finds all its matches before anything else.")
    beside = subject.display_hw[0] >= subject.display_hw[1]
    strips = Strips(subject, CELL, beside=beside)
    width, height = strips.size
    row_height = HEAD + height + NOTE + 0.15
    sheet = Sheet(LEFT + (WRONG_SHOWN + 2) * (width + GAP) + 0.34, TOP + len(queries) * row_height)
    subtitle = f"descriptor '{subject.descriptor}', mAP {100 * float(ranking.ap.nanmean()):.1f} %"
    sheet.title(LEFT, 0.12, f"The {len(queries)} worst of {len(ranking.by_ap())} queries", subtitle)
    for row, query in enumerate(queries):
        y = TOP + row * row_height
        index, matches = int(split.query[query]), ranking.matches(query)
        sheet.text(LEFT, y, split.samples[index].name, fontweight="bold")
        sheet.text(LEFT, y + 0.16, explain(matches, split.pids, float(ranking.ap[query])), fontsize=7.5, color=FAINT)
        strips.draw(sheet, LEFT, y + HEAD, index)
        for column, match in enumerate(pick(matches), start=1):
            x = LEFT + column * (width + GAP) + (0.3 if match.correct else 0.15)
            strips.draw(sheet, x, y + HEAD, match.index, match)
    path = save(sheet.figure, folder / "failures.png", dpi=dpi)
    direction = "side by side" if beside else "one below the other"
    return Picture(path, "Failures", CAPTION.format(direction=direction))


def pick(matches: Sequence[Match]) -> list[Match]:
    """Choose the nearest wrong matches and then the first correct one."""
    wrong = [match for match in matches if not match.correct][:WRONG_SHOWN]
    return wrong + [match for match in matches if match.correct][:1]


def explain(matches: Sequence[Match], pids: Sequence[int], ap: float) -> str:
    """Say how bad a query is, where its first correct match is ranked, and who is ranked before it."""
    first = next(match.rank for match in matches if match.correct)
    text = f"AP {100 * ap:.1f} %; first correct at rank {first} of {len(matches)}"
    ahead = mistaken_for(matches, pids).most_common()
    if not ahead:
        return text
    named = ", ".join(f"id {pid} ({count})" for pid, count in ahead[:NAMED])
    more = len(ahead) - NAMED
    return f"{text}; before it {named}{f' and {more} other identities' if more > 0 else ''}"
