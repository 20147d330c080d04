"""One HTML page with all pictures in it, to be read offline and passed on as a single file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tools.visualize.style import CORRECT, FAINT, INK, Picture

STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 76rem; color: {INK}; background: #fff;
  font: 15px/1.55 "DejaVu Sans", "Segoe UI", Helvetica, Arial, sans-serif; }}
h1 {{ margin: 0 0 .8rem; font-size: 1.55rem; }}
h2 {{ margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 1px solid #ddd; font-size: 1.2rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; font-size: .9rem; }}
dt, p {{ color: {FAINT}; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
nav {{ margin: 1.2rem 0 0; font-size: .9rem; }}
nav a {{ margin-right: 1.1rem; color: {CORRECT}; text-decoration: none; }}
nav a:hover {{ text-decoration: underline; }}
p {{ margin: 0 0 1rem; max-width: 62rem; font-size: .9rem; }}
.figures {{ display: flex; flex-wrap: wrap; gap: 1.6rem 2.4rem; }}
figure {{ margin: 0; max-width: 100%; }}
img {{ display: block; max-width: 100%; height: auto; }}
"""


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
        facts: what is shown, by name, above the pictures.
        sections: the pictures by sub-command, or why there are none.
        dpi: of the pictures, which are shown in their true size where the window has room.
    """
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in sections)
    table = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    body = "\n".join(_section(name, content, dpi) for name, content in sections.items())
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<dl>{table}</dl>\n<nav>{links}</nav>\n"
        f"{body}\n</body>\n</html>\n",
        encoding="utf-8",
    )


def _section(name: str, content: Sequence[Picture] | str, dpi: int) -> str:
    head = f'<h2 id="{escape(name)}">{escape(name)}</h2>'
    if isinstance(content, str):
        return f"{head}\n<p>Left out. {escape(content)}</p>"
    figures = "\n".join(_figure(picture, dpi) for picture in content)
    return f'{head}\n<p>{escape(content[0].caption)}</p>\n<div class="figures">\n{figures}\n</div>'


def _figure(picture: Picture, dpi: int) -> str:
    data = picture.path.read_bytes()
    width = int.from_bytes(data[16:20], "big") * 96 // dpi  # a PNG's header holds its width; CSS has 96 pixels an inch
    source = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{source}" width="{width}" alt="{escape(picture.title)}" '
        f'title="{escape(picture.path.name)}"></figure>'
    )
