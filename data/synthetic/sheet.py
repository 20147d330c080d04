"""Write a contact sheet, which shows at a glance what the set looks like."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data.synthetic.generate import SPLIT_FOLDERS
from data.synthetic.identity import CHANNELS
from utils.errors import UserError
from utils.files import atomic_write

PAPER, INK = (255, 255, 255), (40, 40, 40)
TILE_HEIGHT = 144  # pixels
MARGIN, GAP, LABEL = 10, 8, 15  # pixels; GAP lies between samples, whose three images touch


def contact_sheet(folder: Path, out: Path, *, ids: int = 6, images_per_id: int = 4) -> None:
    """Write a PNG with a row per training identity and, for each of its samples, the three modalities side by side.

    Args:
        folder: from `ensure_synthetic`, or any set in RGBNT201's layout.
        out: the PNG to write.
        ids: largest number of rows, which are spread over the identities of the set.
        images_per_id: largest number of samples per row, spread over those of the identity.

    Raises:
        UserError: there are no images in `folder`.
    """
    images = Path(folder) / SPLIT_FOLDERS["train"]
    names_by_id: dict[str, list[str]] = {}
    for path in sorted((images / next(iter(CHANNELS))).glob("*.jpg")):
        names_by_id.setdefault(path.name[:6], []).append(path.name)
    if not names_by_id:
        raise UserError(f"There are no images in {images}. Give the folder of a set in RGBNT201's layout.")
    rows = [_spread(names, images_per_id) for names in _spread(list(names_by_id.values()), ids)]

    with Image.open(images / next(iter(CHANNELS)) / rows[0][0]) as first:
        tile = (round(TILE_HEIGHT * first.width / first.height), TILE_HEIGHT)
    cell = (len(CHANNELS) * tile[0] + GAP, tile[1] + LABEL + GAP)
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (2 * MARGIN + columns * cell[0] - GAP, 2 * MARGIN + len(rows) * cell[1] - GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for row, names in enumerate(rows):
        for column, name in enumerate(names):
            left, top = MARGIN + column * cell[0], MARGIN + row * cell[1]
            identity, camera = name.split("_")[:2]
            draw.text((left, top), f"{identity} {camera}", fill=INK, font=font)
            for position, modality in enumerate(CHANNELS):
                right = left + (position + 1) * tile[0]
                with Image.open(images / modality / name) as image:
                    sheet.paste(
                        image.convert("RGB").resize(tile, Image.Resampling.LANCZOS), (right - tile[0], top + LABEL)
                    )
                if position:  # the first image has the name of the identity above it
                    draw.text((right - 2, top), modality, fill=INK, font=font, anchor="ra")
    with atomic_write(Path(out), "wb") as file:
        sheet.save(file, format="PNG", optimize=True)


def _spread(items: list, count: int) -> list:
    """Return `count` of the items, evenly spaced, or all if there are fewer."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items
