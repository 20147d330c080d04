"""Train variants of an experiment with several seeds each, and report which differences are real.

    python -m tools.ablate --config_file F --grid KEY=V1,V2 [--grid ...] --seeds 1,2,3 --output DIR [KEY VALUE ...]
    python -m tools.ablate --config_file F --variants configs/variants.yml --seeds 1,2,3 --output DIR [KEY VALUE ...]
    python -m tools.ablate --report_only --output DIR

A run lies in DIR/<variant>/seed<k>. The same command again continues a sweep: finished runs are skipped, broken ones
go on from their checkpoint, failed ones are tried again. Ctrl-C lets the runs save and stops; the report is written
all the same. Ends with 0 when every run is finished, 1 when one is not.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from tools.ablate import words
from tools.ablate.plan import SWEEP, Sweep, grid_variants, load_sweep, parse_seeds, plan_sweep, read_variants
from tools.ablate.process import now
from tools.ablate.report import REPORT, write_report
from tools.ablate.runner import choose_slots, prepare_data, run_all, threads_per_job
from tools.ablate.stats import NO_SCIPY, scipy_stats
from tools.ablate.submit import submit_all
from utils.errors import UserError
from utils.logging import setup_logging
from utils.provenance import commit, machine
from utils.script import run_script

logger = logging.getLogger("ablate")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", help="YAML of the experiment that the variants differ from")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V1,V2", help="every combination of these")
    parser.add_argument("--variants", type=Path, help="YAML of named variants, such as configs/variants.yml")
    parser.add_argument("--reference", help="the variant to compare with (default: the file's, or the one as is)")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of every variant (%(default)s)")
    parser.add_argument("--jobs", type=int, help="runs at the same time (one per visible GPU, or 1 on the CPU)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the sweep and its report")
    parser.add_argument("--report_only", action="store_true", help="make the report of the runs there are")
    parser.add_argument("--submit", choices=("slurm", "local"), help="submit the runs as jobs through submitit")
    parser.add_argument(
        "--submit_set", action="append", default=[], metavar="NAME=VALUE", help="submitit, such as slurm_partition=gpu"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override in all variants")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Sweep and report; 0 when every run is finished."""
    args = parse_args(argv)
    setup_logging()
    if scipy_stats is None:
        logger.info("warning: %s", NO_SCIPY)
    signum = None
    if args.report_only:
        sweep = load_sweep(args.output)
    else:
        sweep = plan(args)
        with logging_redirect_tqdm():
            signum = work(sweep, args)
    summary = write_report(sweep)
    for warning in summary["warnings"]:
        logger.info("note: %s", warning)
    for heading, items in words.in_short(summary):
        logger.info("%s:\n  %s", heading, "\n  ".join(items))
    logger.info("Report: %s", sweep.folder / f"{REPORT}.html")
    if signum is not None:
        logger.info("Stopped; the same command continues.")
        return 128 + signum
    return 0 if summary["finished"] == summary["asked"] else 1


def plan(args: argparse.Namespace) -> Sweep:
    """The sweep that the command line asks for.

    Raises:
        UserError: it does not make sense, or a configuration in it does not.
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


def work(sweep: Sweep, args: argparse.Namespace) -> int | None:
    """Bring the runs of a sweep to their ends; the signal that stopped it, if one did."""
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
    prepare_data(sweep.runs)
    if args.submit:
        folder = sweep.folder / "jobs"
        submit_all(sweep.runs, cluster=args.submit, folder=folder, settings=args.submit_set, jobs=args.jobs)
        return None
    return run_all(sweep.runs, slots=slots, threads=threads_per_job(len(slots)))


if __name__ == "__main__":
    sys.exit(run_script(main))
