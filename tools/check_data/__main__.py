"""Check a data set before training on it: its counts, pairs and names, and that every image can be decoded.

    python -m tools.check_data --name RGBNT201 --root PATH [--num_instance K]

Prints everything that is wrong, not only the first problem. The exit code is 0 if nothing is wrong, 1 if something is,
and 2 if the data set was not found.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.datasets import find_dataset
from data.datasets.base import Counts
from data.loading.decode import read_rgb
from data.sample import MODALITIES, Sample
from utils.cpus import available_cpus
from utils.errors import UserError
from utils.progress import progress_bar
from utils.script import run_script

Splits = Mapping[str, Sequence[Sample]]
SIZES_SHOWN = 5
"""Image sizes that are printed of each modality."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="data set, as DATASETS.NAMES")
    parser.add_argument("--root", required=True, type=Path, help="where it is, as DATASETS.ROOT_DIR")
    parser.add_argument("--num_instance", type=int, default=8, help="K, as DATALOADER.NUM_INSTANCE (%(default)s)")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="threads that decode (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Check the data set and return 1 if something is wrong with it."""
    args = parse_args(argv)
    dataset = find_dataset(args.name)
    scan = dataset.scan(args.root)
    print(f"{dataset.name} in {scan.root}\n")
    wrong_counts = print_counts(scan.splits, dataset.expected or {})
    print_small_ids(scan.splits["train"], args.num_instance)
    shared = print_shared_ids(scan.splits)
    unreadable = print_sizes(scan.splits, args.workers)
    problems = scan.problems | {
        "count(s) other than published": wrong_counts,
        "identities both in train and in the test sets": shared if dataset.expected else [],
        "unreadable image(s)": unreadable,
    }
    for problem, entries in problems.items():
        if entries:
            print(f"\n{len(entries)} {problem}:", *entries, sep="\n  ")
    found = any(problems.values())
    print(f"\n{dataset.name} is {'not ' if found else ''}in order.")
    return int(found)


def count_split(samples: Sequence[Sample]) -> Counts:
    """Count the identities, samples and cameras of one split."""
    per_camera = Counter(sample.camera for sample in samples)
    return {
        "ids": len({sample.pid for sample in samples}),
        "samples": len(samples),
        "cameras": len(per_camera),
        "per camera": " / ".join(str(per_camera[camera]) for camera in sorted(per_camera)),
    }


def print_counts(splits: Splits, expected: Mapping[str, Counts]) -> list[str]:
    """Print the counts that were found and expected, and return those that differ."""
    row = "{:1} {:8} {:11} {:>24} {:>24}"
    print(row.format("", "split", "", "found", "expected"))
    wrong = []
    for split, samples in splits.items():
        for name, found in count_split(samples).items():
            wanted = expected.get(split, {}).get(name, found)
            if wanted != found:
                wrong.append(f"{split}, {name}: {found} instead of {wanted}")
            shown = expected.get(split, {}).get(name, "-")
            print(row.format("!" if wanted != found else "", split, name, found, shown))
    return wrong


def print_small_ids(train: Sequence[Sample], num_instance: int) -> None:
    """Print how many samples an identity has, and how many identities have too few for a batch."""
    counts = Counter(sample.pid for sample in train).values()
    if counts:
        small = sum(count < num_instance for count in counts)
        print(
            f"\n{min(counts)} to {max(counts)} samples per training identity; {small} identities have fewer than "
            f"{num_instance}: their images are repeated within a batch."
        )


def print_shared_ids(splits: Splits) -> list[int]:
    """Print how many identities are both trained and tested on, and return them."""
    ids = {split: {sample.pid for sample in samples} for split, samples in splits.items()}
    shared = sorted(ids["train"] & (ids["query"] | ids["gallery"]))
    print(f"{len(shared)} identities are both in train and in query or gallery.")
    return shared


def print_sizes(splits: Splits, workers: int) -> list[str]:
    """Decode every file once, print the commonest sizes of each modality, and return the errors."""
    modalities: dict[Path, str] = {}
    for sample in (sample for samples in splits.values() for sample in samples):
        for modality, path in zip(MODALITIES, sample.paths, strict=True):
            if path is not None:
                modalities[path] = "tiled" if sample.tiled else modality
    sizes: dict[str, Counter] = defaultdict(Counter)
    errors = []
    with ThreadPoolExecutor(workers) as pool:
        results = progress_bar(
            pool.map(_size_or_error, modalities), desc="decode", total=len(modalities), unit="images"
        )
        for modality, result in zip(modalities.values(), results, strict=True):
            if isinstance(result, UserError):
                errors.append(str(result))
            else:
                sizes[modality][result] += 1
    for modality, counts in sizes.items():
        shown = ", ".join(f"{w}x{h} ({count})" for (w, h), count in counts.most_common(SIZES_SHOWN))
        rest = f" and {len(counts) - SIZES_SHOWN} more sizes" if len(counts) > SIZES_SHOWN else ""
        print(f"{modality}: width x height {shown}{rest}")
    return errors


def _size_or_error(path: Path) -> tuple[int, int] | UserError:
    try:
        return read_rgb(path).size
    except UserError as error:
        return error


if __name__ == "__main__":
    sys.exit(run_script(main))
