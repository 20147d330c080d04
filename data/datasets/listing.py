"""Find, list and pair image files by name.

Everything that is wrong with a tree is collected in a `Scan`, so that a user sees all of it at once: `checked` raises
it as one error, and tools.check_data prints it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.sample import Sample
from utils.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NUM_SHOWN = 5  # An error names this many files and counts the rest.

MISSING_FOLDER = "missing folder(s)"
NO_MASK = "sample(s) without a mask"
NO_SAMPLES = "folder(s) without any sample"
UNPAIRED = "file(s) without a partner of the same name"

NEEDS_NOTHING = "configs/Synthetic/DeMo_SDTPS.yml needs no download."


@dataclass
class Scan:
    """A scan holds what a walk over a data set found: its samples by split, and everything that is wrong with it."""

    name: str
    root: Path
    splits: dict[str, list[Sample]] = field(default_factory=dict)
    """The keys are 'train', 'query' and 'gallery'."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Maps each kind of problem to entries that each name a file or folder."""

    def report(self, problem: str, path: Path | str, remark: str = "") -> None:
        """Note that `path` has `problem`."""
        if isinstance(path, Path) and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        self.problems.setdefault(problem, []).append(f"{path} ({remark})" if remark else str(path))

    def has_folder(self, folder: Path) -> bool:
        """Return whether `folder` exists, and report it if it does not."""
        if not folder.is_dir():
            self.report(MISSING_FOLDER, folder)
        return folder.is_dir()

    def checked(self) -> dict[str, list[Sample]]:
        """Return the splits.

        Raises:
            UserError: something is wrong with the tree.
        """
        if self.problems:
            found = "; ".join(f"{len(paths)} {problem}: {_shown(paths)}" for problem, paths in self.problems.items())
            raise UserError(
                f"{self.name} in {self.root} is not in order. {found}. Fix or remove these; "
                f"`python -m tools.check_data --name {self.name} --root {self.root}` lists all of them."
            )
        return self.splits


def _shown(entries: Sequence[str]) -> str:
    rest = len(entries) - NUM_SHOWN
    return ", ".join(entries[:NUM_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def find_root(root: Path, names: Sequence[str], markers: Sequence[str], *, title: str, source: str) -> Path:
    """Find the folder that holds the folders `markers`: `root`, or one below it along `names`, outermost first.

    Each name may be left out and letter case is ignored, so that users can give the data set's own folder or the one
    they unpacked it into. The candidate with the most markers wins; a tie goes to the outermost.

    Args:
        root: where to look.
        names: folders that may lie between `root` and the markers.
        markers: folders that the data set consists of.
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
    """Describe what is at `folder`, for a message."""
    if not folder.exists():
        return f"{folder} does not exist"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    inside = sorted(entry.name for entry in os.scandir(folder))
    return f"{folder} holds {_shown(inside)}" if inside else f"{folder} is empty"


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted, without hidden ones; none if `folder` does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))]


def list_images(folder: Path) -> list[str]:
    """Return the names of the image files in `folder`, sorted; hidden files and other kinds of files are ignored."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_image_name(e.name) and not e.is_dir())


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is an image of a data set."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def pair_by_name(scan: Scan, folders: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return the files that have the same name in all `folders`, one tuple per name, sorted by name.

    A missing folder and a file that is not in all of them are reported to the scan.
    """
    if not all([scan.has_folder(folder) for folder in folders]):  # a list, so that every missing folder is reported
        return []
    names = [set(list_images(folder)) for folder in folders]
    paired = set.intersection(*names)
    for name in sorted(set.union(*names) - paired):
        holders = [folder for folder, held in zip(folders, names, strict=True) if name in held]
        lacking = [folder.name for folder in folders if folder not in holders]
        scan.report(UNPAIRED, holders[0] / name, f"not in {', '.join(lacking)}")
    return [tuple(folder / name for folder in folders) for name in sorted(paired)]
