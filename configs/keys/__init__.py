"""Every configuration key is declared here once, under DeMo's name wherever DeMo has the key."""

from configs.keys.data import DATA
from configs.keys.model import MODEL
from configs.keys.run import RUN
from configs.keys.selection import SELECTION
from configs.schema import Key

KEYS: dict[str, Key] = MODEL | SELECTION | DATA | RUN
DEFAULTS = {name: key.default for name, key in KEYS.items()}

__all__ = ["DEFAULTS", "KEYS"]
