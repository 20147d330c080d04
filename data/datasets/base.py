"""A data set is one description: its name, its protocol, its published counts and a way to list its samples.

A data set that lies in folders and encodes identity and camera in its file names is a `FolderDataSet`, which needs no
code except `read_name`. rgbnt100.py, rgbnt201.py and msvr310.py are examples of the three layouts that it reads.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data.datasets.listing import NO_MASK, NO_SAMPLES, Scan, find_root, list_folders, list_images, pair_by_name
from data.sample import MODALITIES, Sample

Counts = Mapping[str, int | str]
"""Maps 'ids', 'samples', 'cameras' and 'per camera' to the counts of a split."""


@dataclass(frozen=True, kw_only=True)
class DataSet(ABC):
    """The rest of the program uses a data set through this interface."""

    name: str
    source: str
    """Tells a user where to get it."""
    protocol: Literal["camera", "scene"] | None
    """A query ignores the gallery images of its own identity from the same camera or scene. If it is
    None, the user decides (DATASETS.PROTOCOL)."""
    expected: Mapping[str, Counts] | None = None
    """Maps each split to the counts of a complete copy, where they are published."""

    def prepare(self, root: Path, *, settings: Mapping[str, Any], workers: int) -> Path:
        """Make sure that the data set is on disk, if the program can provide it, and return the root to scan.

        Args:
            root: DATASETS.ROOT_DIR.
            settings: the section of the configuration that has the data set's name (the keys of SYNTHETIC for the
                data set 'synthetic'), with keys in lower case; empty if there is none.
            workers: how many processes may be used.
        """
        return root

    @abstractmethod
    def scan(self, root: Path) -> Scan:
        """List the samples and collect everything that is wrong with the data set. No pixel is read.

        Raises:
            UserError: the data set was not found.
        """

    def parse(self, root: Path) -> dict[str, list[Sample]]:
        """Return the samples by split: 'train', 'query' and 'gallery'. No pixel is read.

        Raises:
            UserError: the data set was not found, or something is wrong with it.
        """
        return self.scan(root).checked()


@dataclass(frozen=True, kw_only=True)
class FolderDataSet(DataSet):
    """This data set lies in folders, in one of three layouts.

    The layouts are <split>/<modality>/<image>, <split>/<identity>/<modality>/<image> and <split>/<image>. The images of
    a sample have the same file name in every modality's folder.
    """

    root_names: tuple[str, ...]
    """Names the folders that may lie between DATASETS.ROOT_DIR and the splits, outermost first."""
    splits: Mapping[str, str]
    """Maps 'train', 'query' and 'gallery' to their folders, which need not be distinct."""
    modality_folders: tuple[str, ...] = ()
    """Names the folders in the order of MODALITIES. If it is empty, an image file holds the modalities side by side."""
    has_identity_folders: bool = False
    """Says whether the modality folders lie in a folder per identity."""
    mask_folder: str | None = None
    """Names a folder beside the modality folders that may hold <stem>.png, the mask of each sample."""
    file_name: re.Pattern[str]
    """Matches the name of every image, without its suffix."""
    bad_name: str
    """Describes an image whose name does not match, such as 'file(s) not named like 0548_c0002_000.jpg'."""
    read_name: Callable[[re.Match[str], Path], dict[str, int]]
    """Returns `pid`, `camera` (counted from 0) and, if the protocol needs it, `scene` of a sample from the match and
    the identity's folder (the split's if there is none). A ValueError is reported as a problem, in its own words."""

    def scan(self, root: Path) -> Scan:
        folders = tuple(dict.fromkeys(self.splits.values()))
        found = Scan(self.name, find_root(root, self.root_names, folders, title=self.name, source=self.source))
        samples = {folder: self._scan_split(found, found.root / folder) for folder in folders}
        found.splits = {split: list(samples[folder]) for split, folder in self.splits.items()}
        return found

    def _scan_split(self, found: Scan, split: Path) -> list[Sample]:
        """Return the samples in the folder of a split, sorted by their paths."""
        if not found.has_folder(split):
            return []
        samples = []
        for folder, paths in self._walk(found, split):
            match = self.file_name.fullmatch(paths[0].stem)
            try:
                if match is None:
                    raise ValueError(self.bad_name)
                sample = Sample(paths, **self.read_name(match, folder), tiled=not self.modality_folders)
            except ValueError as error:
                found.report(str(error), paths[0])
            else:
                samples.append(sample)
        if not samples:
            found.report(NO_SAMPLES, split)
        return self._add_masks(found, samples, split) if self.mask_folder else samples

    def _walk(self, found: Scan, split: Path) -> Iterator[tuple[Path, tuple[Path, ...]]]:
        """Yield the folder of each sample's identity (or the split's) and the sample's paths."""
        if not self.modality_folders:
            for name in list_images(split):
                yield split, (split / name,) * len(MODALITIES)
            return
        for folder in list_folders(split) if self.has_identity_folders else [split]:
            for paths in pair_by_name(found, [folder / modality for modality in self.modality_folders]):
                yield folder, paths

    def _add_masks(self, found: Scan, samples: list[Sample], split: Path) -> list[Sample]:
        """Return the samples with their masks, if the split has any."""
        if not (split / self.mask_folder).is_dir():
            return samples
        masks = [split / self.mask_folder / f"{sample.paths[0].stem}.png" for sample in samples]
        for sample, mask in zip(samples, masks, strict=True):
            if not mask.is_file():
                found.report(NO_MASK, sample.paths[0])
        return [replace(sample, mask=mask) for sample, mask in zip(samples, masks, strict=True)]
