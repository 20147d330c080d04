"""A CSV file lists your own data set, which then needs no code and no folder layout.

    split,id,camera,scene,rgb,ni,ti
    train,17,0,0,rgb/0001.jpg,ni/0001.jpg,ti/0001.jpg
    query,23,1,0,rgb/0002.jpg,,ti/0002.jpg

The split is train, query or gallery; id, camera and scene are whole numbers from 0, and the column scene is optional.
Image paths are relative to the CSV file; an empty path means that the modality is absent.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.datasets.base import DataSet
from data.datasets.listing import NEEDS_NOTHING, Scan
from data.sample import MODALITIES, Sample
from utils.errors import UserError

SPLITS = ("train", "query", "gallery")
PATH_COLUMNS = tuple(modality.lower() for modality in MODALITIES)
REQUIRED_COLUMNS = ("split", "id", "camera", *PATH_COLUMNS)
COLUMNS = ("split", "id", "camera", "scene", *PATH_COLUMNS)

BAD_ROW = "bad row(s)"
NO_ROWS = "split(s) without a row"


@dataclass(frozen=True, kw_only=True)
class Manifest(DataSet):
    """This data set is a CSV file, which `root` names."""

    def scan(self, root: Path) -> Scan:
        """List the rows of the CSV file `root` in order; bad rows and missing images become problems.

        Raises:
            UserError: there is no such file, or it is not a CSV file with the right header.
        """
        if not root.is_file():
            state = "is a folder" if root.is_dir() else "does not exist"
            raise UserError(
                f"The manifest {root} {state}. Set DATASETS.ROOT_DIR to a CSV file with the columns "
                f"{','.join(COLUMNS)} (see the README). {NEEDS_NOTHING}"
            )
        found = Scan(self.name, root, splits={split: [] for split in SPLITS})
        lines: dict[tuple[str, Sample], int] = {}
        for line, row in _read_rows(root):
            try:
                split, sample = _parse_row(row, root.parent)
                if (split, sample) in lines:
                    raise ValueError(f"it repeats line {lines[split, sample]}")
            except ValueError as error:
                found.report(BAD_ROW, f"{root}:{line}", str(error))
                continue
            lines[split, sample] = line
            found.splits[split].append(sample)
        _report_missing_images(found, lines)
        for split, samples in found.splits.items():
            if not samples:
                found.report(NO_ROWS, split)
        return found


MANIFEST = Manifest(name="manifest", source="your own CSV file, see the README", protocol=None)


def _read_rows(csv_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows as dicts, each with the number of the line that it ends on."""
    try:
        with open(csv_path, newline="", encoding="utf-8-sig") as file:  # -sig: spreadsheets write a byte-order mark
            reader = csv.DictReader(file, strict=True)
            _check_header(csv_path, reader.fieldnames or [])
            for row in reader:
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"The manifest {csv_path} is not a CSV file in UTF-8: {error}. Save it as one.") from error


def _check_header(csv_path: Path, header: Iterable[str]) -> None:
    header = list(header)
    missing = [column for column in REQUIRED_COLUMNS if column not in header]
    unknown = [column for column in header if column not in COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        raise UserError(
            f"The first line of the manifest {csv_path} is {','.join(header)!r}; it must name the columns "
            f"{','.join(COLUMNS)}, separated by commas, in any order; scene is optional."
        )


def _parse_row(row: dict[str | None, str | None], folder: Path) -> tuple[str, Sample]:
    """Return the split and the sample of a row; a ValueError says what is wrong with the row."""
    if None in row or None in row.values():
        raise ValueError("it does not have as many fields as the first line")
    if row["split"] not in SPLITS:
        raise ValueError(f"split is {row['split']!r} but must be one of {', '.join(SPLITS)}")
    numbers = {column: _whole_number(column, row.get(column, "0")) for column in ("id", "camera", "scene")}
    paths = tuple(folder / row[column] if row[column] else None for column in PATH_COLUMNS)
    if not any(paths):
        raise ValueError(f"all of {', '.join(PATH_COLUMNS)} are empty, but one must name an image")
    return row["split"], Sample(paths, pid=numbers["id"], camera=numbers["camera"], scene=numbers["scene"])


def _whole_number(column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{column} is {text!r} but must be a whole number from 0")
    return int(text)


def _report_missing_images(found: Scan, lines: dict[tuple[str, Sample], int]) -> None:
    """Report images that do not exist. Each folder is listed once, which on a network disk beats a lookup per file."""
    listed: dict[Path, set[str]] = {}
    for (_, sample), line in lines.items():
        for path in filter(None, sample.paths):
            if path.parent not in listed:
                listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            if path.name not in listed[path.parent]:
                found.report(BAD_ROW, f"{found.root}:{line}", f"there is no image {path}")
