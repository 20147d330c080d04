"""Measure the speed of every part of a run side by side with the way public multi-modal ReID code does it.

    python -m tools.benchmark [--only train,infer,...] [--output benchmarks/NAME.json] [--quick]

Our way and the reference (tools/benchmark/reference) take turns in one run. Numbers are medians; a ratio above 1 means
that ours is better; IQR is the larger of the two interquartile ranges, as a share of the median. Sizes are small on a
CPU. The synthetic set is drawn unless --root holds it, and weights are random.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy
import PIL
import timm
import torch

from engine.precision import resolve_device
from tools.benchmark.build import SIZES, Bench, build_bench
from tools.benchmark.epoch import measure_epoch
from tools.benchmark.inference import measure_inference, measure_missing
from tools.benchmark.inputs import measure_input
from tools.benchmark.ranks import measure_metric, measure_reranking
from tools.benchmark.scores import measure_scores
from tools.benchmark.stages import measure_stages
from tools.benchmark.steps import measure_compile, measure_training
from tools.benchmark.timing import Row
from utils.cpus import available_cpus
from utils.errors import UserError
from utils.files import atomic_write
from utils.logging import setup_logging
from utils.provenance import commit, processor
from utils.script import run_script

SUBJECTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "train": measure_training,
    "stages": measure_stages,
    "scores": measure_scores,
    "infer": measure_inference,
    "missing": measure_missing,
    "input": measure_input,
    "metric": measure_metric,
    "rerank": measure_reranking,
    "epoch": measure_epoch,
    "compile": measure_compile,
}
DEFAULT = tuple(SUBJECTS)[:-1]
"""All but torch.compile, which takes minutes to start."""
SMALL_VIT, VIT_B = "Synthetic/DeMo_SDTPS.yml", "RGBNT201/DeMo_SDTPS.yml"
TABLE = "{:8}{:76}{:>12}{:>12}  {:11}{:>8}{:>7}"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = f"subjects separated by commas, out of {','.join(SUBJECTS)}; default: all but the last"
    parser.add_argument("--only", default=",".join(DEFAULT), help=words)
    parser.add_argument("--output", type=Path, help="JSON file to write; default: print the table only")
    parser.add_argument("--device", default="auto", help="as MODEL.DEVICE (%(default)s)")
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="folder of the synthetic set (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to see whether it runs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write."""
    args = parse_args(argv)
    setup_logging()
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(SUBJECTS):
        raise UserError(f"--only names {', '.join(sorted(unknown))}. Allowed: {', '.join(SUBJECTS)}.")
    report = describe(resolve_device(args.device), argv)  # names the commit, so it comes before the output file
    report["rows"] = []
    print(TABLE.format("subject", "measure", "ours", "reference", "unit", "ratio", "IQR"))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for subject, row in measure(chosen, args, Path(folder)):
            report["rows"].append({"subject": subject} | row.as_dict())
            print(format_row(subject, row), flush=True)
            if args.output:  # after every row, so that a late failure loses nothing
                with atomic_write(args.output) as file:
                    file.write(json.dumps(report, indent=1) + "\n")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in report.items() if key != "rows"))
    return 0


def measure(chosen: Sequence[str], args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the chosen subjects, each with its subject."""
    sizes = SIZES["quick" if args.quick else resolve_device(args.device).type]
    batches = {SMALL_VIT: 32, VIT_B: sizes.eval_batch}
    experiments = {
        "scores": [(config, ("TEST.IMS_PER_BATCH", batch)) for config, batch in batches.items()],
        "missing": [(VIT_B, sizes.whole_set)],
        "epoch": [(SMALL_VIT, ()), (VIT_B, sizes.whole_set)],
    }
    options = {"root": args.root, "folder": folder, "device": args.device, "quick": args.quick}
    for subject in chosen:
        for config, opts in experiments.get(subject, [(VIT_B, ())]):
            for row in SUBJECTS[subject](build_bench(config, opts=opts, **options)):
                yield subject, row
            gc.collect()  # trainers refer to themselves, and those of several subjects would fill the memory


def format_row(subject: str, row: Row) -> str:
    """Format a line of the table."""
    reference = "" if row.reference is None else f"{row.reference:,.4g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    spread = "" if row.spread is None else f"{100 * row.spread:.0f} %"
    return TABLE.format(subject, row.name, f"{row.ours:,.4g}", reference, row.unit, ratio, spread)


def describe(device: torch.device, argv: list[str] | None) -> dict:
    """Say where and how this is measured."""
    arguments = sys.argv[1:] if argv is None else argv
    modules = {"torch": torch, "timm": timm, "numpy": numpy, "pillow": PIL}
    return {
        "command": " ".join(["python -m tools.benchmark", *arguments]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: m.__version__ for name, m in modules.items()},
    }


if __name__ == "__main__":
    sys.exit(run_script(main))
