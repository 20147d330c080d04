"""How fast everything is, side by side with the way public multi-modal ReID code does it.

    python -m tools.benchmark [--only train,infer,...] [--output benchmarks/NAME.json] [--compile] [--quick]

Ours and the peers' way (tools/bench/peers) take turns in one run. Figures are medians; a ratio above 1 is in our
favour; IQR is the larger of the two interquartile ranges, as a share of the median.
Sizes are small on a CPU. Data and weights are made here: the synthetic set is drawn where --root does not hold it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import PIL
import timm
import torch

from engine.precision import resolve_device
from tools.benchmark.build import SIZES, Bench, Sizes, build_bench
from tools.benchmark.early import measure_early, measure_early_training
from tools.benchmark.epoch import measure_epoch
from tools.benchmark.inputs import measure_input
from tools.benchmark.missing import measure_missing
from tools.benchmark.peak import Peak
from tools.benchmark.ranks import measure_metric, measure_reranking
from tools.benchmark.steps import measure_compile, measure_inference, measure_training
from tools.benchmark.timing import Row
from utils.cpus import available_cpus
from utils.errors import UserError
from utils.logging import setup_logging
from utils.provenance import commit, processor
from utils.script import run_script

MODEL_CONFIG = "RGBNT201/DeMo_SDTPS.yml"
TABLE = "{:8}{:72}{:>12}{:>12}  {:11}{:>8}{:>7}"
SUBJECTS = ("train", "infer", "early", "missing", "input", "metric", "rerank", "epoch")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"subjects, by commas, out of {','.join(SUBJECTS)}; default: all")
    parser.add_argument("--output", type=Path, help="JSON to write; default: the table on the screen only")
    parser.add_argument("--device", default="auto", help="as MODEL.DEVICE (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="folder of the synthetic set (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    args = parse_args(argv)
    setup_logging()
    chosen = tuple(filter(None, args.only.split(","))) or SUBJECTS
    if unknown := set(chosen) - set(SUBJECTS):
        raise UserError(f"--only names {', '.join(sorted(unknown))}. Allowed: {', '.join(SUBJECTS)}.")
    device = resolve_device(args.device)
    peak = Peak(device)
    about, rows = describe(device, argv), []  # before the output file changes the tree that it names
    print(TABLE.format("subject", "what", "ours", "peers", "unit", "ratio", "IQR"))
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(chosen, args, device, peak, Path(folder)):
            rows.append(row)
            print(format_row(row), flush=True)
            report = about | {"peak": peak.source(), "rows": [row.as_dict() for row in rows]}
            if args.output:  # row by row, lest one that fails take the minutes before it with it
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in report.items() if key != "rows"))
    return 0


def measure(
    chosen: tuple[str, ...], args: argparse.Namespace, device: torch.device, peak: Peak, folder: Path
) -> Iterator[Row]:
    """The rows of the chosen subjects, in order."""
    sizes: Sizes = SIZES["quick" if args.quick else device.type]

    def bench(config: str = MODEL_CONFIG, **options: Any) -> Bench:
        return build_bench(config, root=args.root, folder=folder, device=str(device), quick=args.quick, **options)

    subjects: list[tuple[str, Callable[[], Iterator[Row]]]] = []
    for batch in sizes.batches:
        subjects += [
            ("train", lambda batch=batch: measure_training(bench(batch=batch), sizes, peak)),
            ("early", lambda batch=batch: measure_early_training(bench(batch=batch), sizes)),
            ("compile", lambda batch=batch: measure_compile(bench(batch=batch), sizes)),
        ]
    subjects += [
        ("infer", lambda: measure_inference(bench(), sizes)),
        ("early", lambda: measure_early(bench(), sizes)),
        ("missing", lambda: measure_missing(bench(opts=sizes.missing_opts), sizes)),
        ("input", lambda: measure_input(bench(), sizes)),
        ("metric", lambda: measure_metric(device, sizes)),
        ("rerank", lambda: measure_reranking(device, sizes)),
    ]
    subjects += [
        ("epoch", lambda of=of: measure_epoch(bench(of.config, opts=of.opts), sizes, early=of.early))
        for of in sizes.epochs
    ]
    for name, subject in subjects:
        if name in chosen or (name == "compile" and args.compile):
            gc.collect()  # trainers refer to themselves, and a few with their optimisers fill a machine
            yield from subject()


def format_row(row: Row) -> str:
    """A line of the table."""
    peers = "" if row.peers is None else f"{row.peers:,.4g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    spread = "" if row.spread is None else f"{100 * row.spread:.0f} %"
    return TABLE.format(row.subject, row.name, f"{row.ours:,.4g}", peers, row.unit, ratio, spread)


def describe(device: torch.device, argv: list[str] | None) -> dict:
    """Where and how this was measured."""
    arguments = sys.argv[1:] if argv is None else argv
    return {
        "command": " ".join(["python -m tools.benchmark", *arguments]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }


if __name__ == "__main__":
    sys.exit(run_script(main))
