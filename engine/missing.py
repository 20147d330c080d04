"""Settings of absent modalities, named by DeMo's letters: r is RGB, n is NI, t is TI."""

from __future__ import annotations

from data.sample import MODALITIES
from utils.errors import UserError

NOTHING = "nothing"
LETTERS = {modality[0].lower(): modality for modality in MODALITIES}
SETTINGS = (NOTHING, "r", "n", "t", "rn", "rt", "nt")  # in the order of the published tables


def absent_modalities(setting: str) -> tuple[bool, ...]:
    """For each of MODALITIES, whether `setting` removes it."""
    absent = set() if setting == NOTHING else {LETTERS[letter] for letter in setting}
    return tuple(modality in absent for modality in MODALITIES)


def title(setting: str) -> str:
    """Return the setting in words, such as 'nothing' or 'RGB+TI'."""
    return setting if setting == NOTHING else "+".join(LETTERS[letter] for letter in setting)


def parse_settings(text: str) -> tuple[str, ...]:
    """Read what --missing lists: 'all', or settings separated by commas; 'none' is another word for 'nothing'.

    Raises:
        UserError: a word is not a setting.
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
