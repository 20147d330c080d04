"""Listing and pairing of image files: sorted, by name, and loud about what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def find_root(root: Path, *, names: Sequence[str], contains: str, how_to_get: str) -> Path:
    """The folder that holds `contains`: `root` itself, or one of `names` in it.

    Raises:
        UserError: neither is; `how_to_get` says where the data set comes from.
    """
    for folder in (root, *(root / name for name in names)):
        if (folder / contains).is_dir():
            return folder
    raise UserError(
        f"There is no {contains} in {root} nor in {root / names[0]}. Set DATASETS.ROOT_DIR to the folder that "
        f"holds {names[0]}. "
        f"{how_to_get} configs/Synthetic/DeMo_SDTPS.yml needs no download."
    )


def list_images(folder: Path) -> list[str]:
    """Sorted names of the image files in a folder; hidden and other files are passed over.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"The data set lacks the folder {folder}.")
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def list_paired(folders: Sequence[Path]) -> list[str]:
    """Sorted names of the images that are in every one of `folders`.

    Raises:
        UserError: a folder is missing or empty, or a name is in some of them only.
    """
    listed = [set(list_images(folder)) for folder in folders]
    everywhere = set.intersection(*listed)
    if unpaired := unpaired_names(folders, listed):
        raise UserError(
            f"{len(unpaired)} images lack a modality: {_some(unpaired)}. Every image needs one file of the same "
            "name in "
            f"{', '.join(folder.name for folder in folders)}; add the missing files or remove the others."
        )
    if not everywhere:
        raise UserError(f"There are no images in {folders[0]}.")
    return sorted(everywhere)


def unpaired_names(folders: Sequence[Path], listed: Sequence[set[str]]) -> list[str]:
    """'<file> (not in NI, TI)' for every name that is in some of `folders` only, whose names are `listed`."""
    lacking = []
    for name in sorted(set.union(*listed)):
        absent = [folder.name for folder, names in zip(folders, listed, strict=True) if name not in names]
        if absent:
            holder = next(folder for folder, names in zip(folders, listed, strict=True) if name in names)
            lacking.append(f"{holder / name} (not in {', '.join(absent)})")
    return lacking


def bad_name(path: Path, pattern: str, example: str) -> UserError:
    """The error for a file whose name does not tell what it shows."""
    return UserError(f"The name of {path} does not follow the data set's pattern {pattern}, as {example} does.")


def _some(items: Iterable[str]) -> str:
    items = list(items)
    return "; ".join(items[:5]) + ("; ..." if len(items) > 5 else "")
