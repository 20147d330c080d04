"""Look a data set over before training on it: counts, pairs, names, and every image decoded in full.

    python -m tools.check_data --name RGBNT201 --root PATH [--num_instance K]

Prints all that is wrong, not only the first; ends with 0 when nothing is, 1 when something is, 2 when the data set
was not found.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from data.datasets import find_dataset
from data.datasets.base import Counts
from data.loading.decode import read_rgb
from data.sample import MODALITIES, Sample
from utils.cpus import available_cpus
from utils.errors import UserError
from utils.script import run_script

Splits = Mapping[str, Sequence[Sample]]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="data set, as DATASETS.NAMES")
    parser.add_argument("--root", required=True, type=Path, help="where it is, as DATASETS.ROOT_DIR")
    parser.add_argument("--num_instance", type=int, default=8, help="K, as DATALOADER.NUM_INSTANCE (%(default)s)")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="threads that decode (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Check the data set; 1 when something is wrong with it."""
    args = parse_args(argv)
    dataset = find_dataset(args.name)
    scan = dataset.scan(args.root)
    print(f"{dataset.name} in {scan.root}\n")
    num_wrong = print_counts(scan.splits, dataset.expected)
    print_small_ids(scan.splits["train"], args.num_instance)
    num_shared = print_shared_ids(scan.splits)
    sizes, unreadable = decode_all(scan.splits, args.workers)
    print_sizes(sizes)

    problems = dict(scan.problems)
    if num_wrong:
        problems["count(s) other than published"] = [f"see the table above, {num_wrong} marked !"]
    if num_shared and dataset.expected is not None:
        problems["identities both in train and in the test sets"] = [str(num_shared)]
    if unreadable:
        problems["unreadable image(s)"] = unreadable
    for problem, places in problems.items():
        print(f"\n{len(places)} {problem}:", *places, sep="\n  ")
    print(f"\n{dataset.name} is {'not ' if problems else ''}in order.")
    return 1 if problems else 0


def count_split(samples: Sequence[Sample]) -> Counts:
    """The figures of one split."""
    per_camera = Counter(sample.camera for sample in samples)
    return {
        "ids": len({sample.pid for sample in samples}),
        "samples": len(samples),
        "cameras": len(per_camera),
        "per camera": " / ".join(str(per_camera[camera]) for camera in sorted(per_camera)),
    }


def print_counts(splits: Splits, expected: Mapping[str, Counts] | None) -> int:
    """Print found against expected counts; the number that differ."""
    row = "{:1} {:8} {:11} {:>24} {:>24}"
    print(row.format("", "split", "", "found", "expected"))
    num_wrong = 0
    for split, samples in splits.items():
        wanted = (expected or {}).get(split, {})
        for figure, found in count_split(samples).items():
            wrong = figure in wanted and wanted[figure] != found
            num_wrong += wrong
            print(row.format("!" if wrong else "", split, figure, found, wanted.get(figure, "-")))
    return num_wrong


def print_small_ids(train: Sequence[Sample], num_instance: int) -> None:
    """Print how many images an identity has, and how many have fewer than K, which the sampler draws repeatedly."""
    images = Counter(sample.pid for sample in train)
    if images:
        small = sum(count < num_instance for count in images.values())
        print(
            f"\n{min(images.values())} to {max(images.values())} samples per training identity; {small} identities "
            f"have fewer than {num_instance}: their images are repeated within a batch."
        )


def print_shared_ids(splits: Splits) -> int:
    """Print and return the number of identities that are both trained and tested on."""
    ids = {split: {sample.pid for sample in samples} for split, samples in splits.items()}
    shared = len(ids["train"] & (ids["query"] | ids["gallery"]))
    print(f"{shared} identities are both in train and in query or gallery.")
    return shared


def decode_all(splits: Splits, workers: int) -> tuple[dict[str, Counter], list[str]]:
    """Decode every file once: (width, height) of the readable ones by modality, errors of the others."""
    modalities: dict[Path, str] = {}
    for samples in splits.values():
        for sample in samples:
            for modality, path in zip(MODALITIES, sample.paths, strict=True):
                if path is not None:
                    modalities[path] = "tiled" if sample.tiled else modality
    sizes: dict[str, Counter] = defaultdict(Counter)
    unreadable = []
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(_size_or_error, modalities)
        progress = tqdm(results, "decode", len(modalities), unit="img", leave=False, dynamic_ncols=True)
        for modality, result in zip(modalities.values(), progress, strict=True):
            if isinstance(result, UserError):
                unreadable.append(str(result))
            else:
                sizes[modality][result] += 1
    return sizes, unreadable


def _size_or_error(path: Path) -> tuple[int, int] | UserError:
    try:
        return read_rgb(path).size
    except UserError as error:
        return error


def print_sizes(sizes: Mapping[str, Counter], num_shown: int = 5) -> None:
    """Print the commonest image sizes of each modality."""
    for modality, counts in sizes.items():
        shown = ", ".join(f"{w}x{h} ({count})" for (w, h), count in counts.most_common(num_shown))
        rest = f" and {len(counts) - num_shown} more sizes" if len(counts) > num_shown else ""
        print(f"{modality}: width x height {shown}{rest}")


if __name__ == "__main__":
    sys.exit(run_script(main))
