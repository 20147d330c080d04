"""One HTML page with all pictures in it, which can be read offline and passed on as a single file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.visualize import style
from tools.visualize.style import Picture
from utils.extras import import_extra

TEMPLATE = Path(__file__).with_name("page.html")
CSS_DPI = 96


def write_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    sections: Mapping[str, Sequence[Picture] | str],
    dpi: int,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: its headline.
        facts: facts on what is shown, by name, which stand above the pictures.
        sections: pictures by sub-command, or the reason why there are none.
        dpi: pixels per inch of the pictures, which are shown in their true size if the window is wide enough.

    Raises:
        UserError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "The page of all pictures")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda picture: base64.b64encode(picture.path.read_bytes()).decode("ascii")
    environment.filters["width"] = lambda picture: _png_width(picture.path) * CSS_DPI // dpi
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(title=title, facts=facts, sections=sections, style=style)
    path.write_text(page, encoding="utf-8")


def _png_width(path: Path) -> int:
    """Read the width in pixels from the header of a PNG file."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(20)[16:], "big")
