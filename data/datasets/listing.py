"""Finding, listing and pairing image files by name.

What is wrong with a tree is collected in a `Scan` rather than met one file at a time: a parser raises all of it at
once, tools.check_data prints it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.sample import Sample
from utils.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NUM_SHOWN = 5
"""Entries that an error names; the rest is counted."""

MISSING_FOLDER = "missing folder(s)"
NO_IMAGES = "folder(s) without any image triplet"
UNPAIRED = "file(s) without a partner of the same name"

NEEDS_NOTHING = "configs/Synthetic/DeMo_SDTPS.yml needs no download."


@dataclass
class Scan:
    """What a walk over a data set found: samples by split, and everything that is not as it should be."""

    name: str
    root: Path
    splits: dict[str, list[Sample]] = field(default_factory=dict)
    """'train', 'query' and 'gallery'."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Entries that each name a file or folder, by what is wrong with it."""

    def report(self, problem: str, place: Path | str, remark: str = "") -> None:
        """Note that `place` has `problem`."""
        if isinstance(place, Path) and place.is_relative_to(self.root):
            place = place.relative_to(self.root)
        self.problems.setdefault(problem, []).append(f"{place} ({remark})" if remark else str(place))

    def has_folder(self, folder: Path) -> bool:
        """Whether `folder` exists; it is a problem if not."""
        if not folder.is_dir():
            self.report(MISSING_FOLDER, folder)
        return folder.is_dir()

    def checked(self) -> dict[str, list[Sample]]:
        """The splits.

        Raises:
            UserError: anything at all is wrong with the tree.
        """
        if self.problems:
            found = "; ".join(f"{len(places)} {problem}: {_shown(places)}" for problem, places in self.problems.items())
            raise UserError(
                f"{self.name} in {self.root} is not in order. {found}. Mend or remove these; "
                f"`python -m tools.check_data --name {self.name} --root {self.root}` lists all of them."
            )
        return self.splits


def _shown(places: Sequence[str]) -> str:
    rest = len(places) - NUM_SHOWN
    return ", ".join(places[:NUM_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def find_root(root: Path, names: Sequence[str], markers: Sequence[str], *, title: str, source: str) -> Path:
    """The folder that holds the folders `markers`: `root`, or one reached from it through `names`, outermost first.

    Each name may be left out, and letter case does not count, so that the folder that a set was unpacked into is found
    as well as the set's own. Of several candidates the one with the most markers is taken, the outermost of equals.

    Args:
        title: what the data set is called.
        source: where to get it.

    Raises:
        UserError: no candidate has any of the markers.
    """
    candidates = [root]
    for name in names:
        candidates += [
            child for parent in candidates for child in list_folders(parent) if child.name.lower() == name.lower()
        ]
    best = max(candidates, key=lambda folder: _count_markers(folder, markers))
    if _count_markers(best, markers) == 0:
        wanted = " and ".join(f"{marker}/" for marker in markers)
        raise UserError(
            f"{title} was not found: {_describe(root)}; expected {wanted} in it or in {root.joinpath(*names)}. "
            f"Set DATASETS.ROOT_DIR to the folder that holds the data set. Where to get it: {source}. {NEEDS_NOTHING}"
        )
    return best


def _count_markers(folder: Path, markers: Sequence[str]) -> int:
    return sum((folder / marker).is_dir() for marker in markers)


def _describe(folder: Path) -> str:
    """What is at `folder`, for a message."""
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    inside = sorted(entry.name for entry in os.scandir(folder))
    return f"{folder} holds {_shown(inside)}" if inside else f"{folder} is empty"


def list_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted, hidden ones left out; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))]


def list_images(folder: Path) -> list[str]:
    """The names of the image files in `folder`, sorted; hidden files and files of other kinds are passed over."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_image_name(e.name) and not e.is_dir())


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image of a data set."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def pair_by_name(scan: Scan, folders: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The files that have the same name in every one of `folders`, one tuple per name, sorted by name.

    A missing folder and a file that is not in all of them are problems of the scan.
    """
    if not all([scan.has_folder(folder) for folder in folders]):  # a list: every missing folder is to be reported
        return []
    names = [set(list_images(folder)) for folder in folders]
    paired = set.intersection(*names)
    for name in sorted(set.union(*names) - paired):
        holders = [folder for folder, held in zip(folders, names, strict=True) if name in held]
        lacking = [folder.name for folder in folders if folder not in holders]
        scan.report(UNPAIRED, holders[0] / name, f"not in {', '.join(lacking)}")
    return [tuple(folder / name for folder in folders) for name in sorted(paired)]


def pair_by_id_folder(
    scan: Scan, split: Path, modality_folders: Sequence[str]
) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Walk split/<id>/<modality>/*: yields the folder of the id and the files of one name, sorted by both."""
    if not scan.has_folder(split):
        return
    for id_folder in list_folders(split):
        for paths in pair_by_name(scan, [id_folder / modality for modality in modality_folders]):
            yield id_folder, paths
