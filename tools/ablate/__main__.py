"""Train variants of an experiment with several seeds each, and report which differences are real.

    python -m tools.ablate --config_file F --grid KEY=V1,V2 [--grid ...] --seeds 1,2,3 --output DIR [KEY VALUE ...]
    python -m tools.ablate --config_file F --variants configs/variants.yml --seeds 1,2,3 --output DIR [KEY VALUE ...]
    python -m tools.ablate --report_only --output DIR

A run is in DIR/<variant>/seed<k>; the report is DIR/report.md. The same command again continues a sweep: it skips
finished runs, continues interrupted ones from their checkpoints, and repeats failed ones. Ctrl-C lets the runs save and
stop; the report is written nevertheless. The exit code is 0 if every run is finished, and 1 if one is not.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from tools.ablate.plan import SWEEP, Sweep, grid_variants, load_sweep, parse_seeds, plan_sweep, read_variants
from tools.ablate.process import now
from tools.ablate.runner import choose_slots, prepare_data, run_all, threads_per_job
from tools.ablate.submit import submit_all
from utils.errors import UserError
from utils.extras import import_extra
from utils.logging import setup_logging
from utils.provenance import commit, machine
from utils.script import run_script

logger = logging.getLogger("ablate")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config_file", help="YAML of the experiment that the variants differ from")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V1,V2", help="train every combination")
    parser.add_argument("--variants", type=Path, help="YAML of named variants, such as configs/variants.yml")
    parser.add_argument("--reference", help="variant to compare with (default: the file's, or the unchanged one)")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of every variant (%(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at the same time (one per visible GPU, or 1 on the CPU)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the sweep and its report")
    parser.add_argument("--report_only", action="store_true", help="write the report of the runs so far")
    parser.add_argument("--submit", choices=("slurm", "local"), help="submit the runs as jobs through submitit")
    parser.add_argument(
        "--submit_set", action="append", default=[], metavar="NAME=VALUE", help="submitit, such as slurm_partition=gpu"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override in all variants")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Plan, run and report a sweep; return 0 if every run is finished."""
    args = parse_args(argv)
    setup_logging()
    for package in ("matplotlib", "pandas", "scipy"):
        import_extra(package, "tools.ablate")  # before a sweep of hours, not after it
    signum = None if args.report_only else run(plan(args), args)
    finished = report(load_sweep(args.output))
    if signum is not None:
        logger.info("Stopped; the same command continues.")
        return 128 + signum
    return 0 if finished else 1


def plan(args: argparse.Namespace) -> Sweep:
    """Make the sweep that the command line asks for.

    Raises:
        UserError: the arguments contradict each other, or a configuration is invalid.
    """
    if not args.config_file:
        raise UserError("--config_file is missing: the YAML of the experiment that the variants differ from.")
    if bool(args.grid) == bool(args.variants):
        raise UserError("Give either --grid KEY=V1,V2 (once or more) or --variants FILE.")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}. Allowed: whole numbers from 1.")
    table, reference = (grid_variants(args.grid), None) if args.grid else read_variants(args.variants)
    return plan_sweep(
        args.output,
        table,
        config_file=args.config_file,
        opts=args.opts,
        seeds=parse_seeds(args.seeds),
        reference=args.reference or reference,
    )


def run(sweep: Sweep, args: argparse.Namespace) -> int | None:
    """Train the runs that are not finished; return the signal that stopped the sweep, or None."""
    slots = choose_slots(sweep.runs, args.jobs)
    former = load_sweep(sweep.folder).starts if (sweep.folder / SWEEP).is_file() else ()
    start = {
        "time": now(),
        "command": shlex.join(["python", "-m", "tools.ablate", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "jobs": f"jobs of {args.submit}" if args.submit else len(slots),
    }
    replace(sweep, starts=(*former, start)).save()
    with logging_redirect_tqdm():
        prepare_data(sweep.runs)
        if not args.submit:
            return run_all(sweep.runs, slots=slots, threads=threads_per_job(len(slots)))
        folder = sweep.folder / "jobs"
        submit_all(sweep.runs, cluster=args.submit, folder=folder, settings=args.submit_set, jobs=args.jobs)
        return None


def report(sweep: Sweep) -> bool:
    """Write the report, log its conclusions, and return whether every run is finished."""
    from tools.ablate import words  # these need the packages that main() has looked for
    from tools.ablate.report import REPORT, write_report

    summary = write_report(sweep)
    for warning in summary.warnings:
        logger.info("note: %s", warning)
    for heading, items in words.conclusions(summary):
        logger.info("%s:\n  %s", heading, "\n  ".join(items))
    logger.info("Report: %s", sweep.folder / REPORT)
    return len(summary.finished()) == len(summary.records)


if __name__ == "__main__":
    sys.exit(run_script(main))
