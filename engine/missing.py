"""Settings of absent modalities: DeMo's letters, r RGB, n NI, t TI, as data."""

from __future__ import annotations

from collections.abc import Iterable

from data.sample import MODALITIES
from utils.errors import UserError

NOTHING = "nothing"
LETTERS = {modality[0].lower(): modality for modality in MODALITIES}
SETTINGS = (NOTHING, "r", "n", "t", "rn", "rt", "nt")
"""In the order of the published tables."""


def absent_modalities(setting: str) -> tuple[bool, ...]:
    """Which of MODALITIES `setting` takes away."""
    gone = set() if setting == NOTHING else {LETTERS[letter] for letter in setting}
    return tuple(modality in gone for modality in MODALITIES)


def title(setting: str) -> str:
    """'nothing' or 'RGB+TI'."""
    return setting if setting == NOTHING else "+".join(LETTERS[letter] for letter in setting)


def parse_settings(text: str) -> tuple[str, ...]:
    """What --missing says: 'all', or settings separated by commas, of which 'none' is another word for 'nothing'.

    Raises:
        UserError: a word is no setting.
    """
    words = SETTINGS if text == "all" else tuple(word.strip().lower() for word in text.split(","))
    settings = tuple(dict.fromkeys(NOTHING if word in ("", "none") else word for word in words))
    unknown = [setting for setting in settings if setting not in SETTINGS]
    if unknown:
        raise UserError(
            f"--missing is {text!r}, of which {', '.join(map(repr, unknown))} is no setting. Allowed: all, or some of "
            f"{', '.join(SETTINGS)}, separated by commas (r RGB, n NI, t TI)."
        )
    return settings


def mean_row(rows: Iterable[dict]) -> dict:
    """The mean over result rows, figure by figure, of every descriptor."""
    rows = list(rows)
    return {
        descriptor: {figure: sum(row["eval"][descriptor][figure] for row in rows) / len(rows) for figure in figures}
        for descriptor, figures in rows[0]["eval"].items()
    }
