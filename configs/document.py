"""Write docs/configuration.md from the declarations of the keys: python -m configs.document."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from configs.keys import KEYS
from configs.schema import Key

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
INTRODUCTION = """# Configuration keys

`python -m configs.document` writes this page from the declarations in `configs/keys/`.

A YAML file sets keys by section, and it may start from another file, which `_BASE_` names. `SECTION.KEY VALUE` on the
command line overrides the file. Changing a key that would have no effect is an error, or a warning where the table says
so. The letter case of a choice does not matter.
"""
HEADER = "| Key | Default | Allowed | Meaning | No effect while |\n|---|---|---|---|---|"


def render() -> str:
    """Describe every key in Markdown, with a table for each section."""
    text = INTRODUCTION
    for section, names in groupby(KEYS, lambda name: name.rpartition(".")[0]):
        rows = "\n".join(_row(name, KEYS[name]) for name in names)
        text += f"\n## {section or 'Top level'}\n\n{HEADER}\n{rows}\n"
    return text


def _row(name: str, key: Key) -> str:
    allowed = key.allowed_text or {bool: "True, False", str: "text"}.get(type(key.default), "numbers")
    reasons = "<br>or ".join(f"{need.because}{' (a warning)' if need.warn else ''}" for need in key.needs)
    cells = (f"`{name}`", f"`{key.default!r}`", allowed, key.meaning, reasons)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
