"""Does Gumbel train? Off, on, and on with the mask of the paper, on the synthetic set: curves of loss and mAP.

    python benchmarks/gumbel_stability.py --output output/gumbel_stability --jobs 2

Runs configs/Synthetic/DeMo_SDTPS.yml for every form and seed (those that are finished are skipped), then writes
benchmarks/gumbel_stability.json and, where matplotlib is installed, docs/gumbel_stability.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.errors import UserError
from utils.extras import import_extra
from utils.provenance import ROOT, commit, machine
from utils.script import run_script

FORMS = {"Gumbel off": "off", "Gumbel on, D as a factor (ours)": "factor", "Gumbel on, -(1 - D) 1e10": "1e10"}


def softmax_with_1e10(logits: Tensor, mask: Tensor) -> Tensor:
    """The mask as the SEPS paper and its public code write it."""
    return (logits - (1 - mask) * 1e10).softmax(dim=-1)


def train(form: str, seed: int, output: Path) -> int:
    """One run, in this process."""
    import modeling.selection.sdtps
    import train_net

    if form == "1e10":
        modeling.selection.sdtps.masked_softmax = softmax_with_1e10
    gumbel = [] if form == "off" else ["MODEL.SDTPS_USE_GUMBEL", "True"]
    sys.argv = ["train_net.py", "--resume", "auto", "SOLVER.SEED", str(seed), "OUTPUT_DIR", str(output)]
    sys.argv += ["DATALOADER.NUM_WORKERS", "0", *gumbel]
    return train_net.main()


def train_all(output: Path, seeds: list[int], jobs: int) -> None:
    """Every form and seed in processes of their own, `jobs` at a time.

    Raises:
        UserError: some of them failed; those that did not are skipped next time.
    """
    env = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def start(form: str, seed: int) -> str:
        """The log of a run that failed, else ''."""
        run = output / f"{form}-{seed}"
        if (run / "results.json").exists():
            return ""
        command = [sys.executable, __file__, "--train", form, "--seeds", str(seed), "--output", str(run)]
        run.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{run}.log", "w") as log:
            ended = subprocess.run(command, cwd=ROOT, env=env, stdout=log, stderr=log, check=False)
        return f"{run}.log" if ended.returncode else ""

    failed = []
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(FORMS) * len(seeds), unit="run") as bar:
        for log in pool.map(lambda run: start(*run), itertools.product(FORMS.values(), seeds)):
            failed += [log] if log else []
            bar.update()
    if failed:
        raise UserError(f"{len(failed)} run(s) failed; the last line of each log says why: {', '.join(failed)}.")


def collect(output: Path, seeds: list[int]) -> dict[str, dict[str, list]]:
    """Loss by epoch and mAP at the evaluations, for every form a list over the seeds."""
    curves = {}
    for title, form in FORMS.items():
        lines = [(output / f"{form}-{seed}" / "metrics.jsonl").read_text().splitlines() for seed in seeds]
        records = [[json.loads(line) for line in of_seed] for of_seed in lines]
        curves[title] = {
            "loss": [[r["losses"]["id/sdtps"] for r in of_seed if "losses" in r] for of_seed in records],
            "mAP": [[[r["epoch"], r["eval"]["sdtps"]["mAP"]] for r in of_seed if "eval" in r] for of_seed in records],
        }
    return curves


def draw(curves: dict[str, dict[str, list]], path: Path) -> None:
    """The curves as a picture: one line per seed."""
    figure = import_extra("matplotlib.figure", "The picture").Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (title, of_form) in zip(("0.45", "tab:blue", "tab:red"), curves.items(), strict=True):
        for i, (loss, scores) in enumerate(zip(of_form["loss"], of_form["mAP"], strict=True)):
            left.plot(range(1, len(loss) + 1), loss, color=colour, label=title if i == 0 else None)
            right.plot(*zip(*scores, strict=True), color=colour, marker=".")
    left.set(xlabel="epoch", ylabel="identity loss of the sdtps head")
    right.set(xlabel="epoch", ylabel="mAP of the sdtps feature, %")
    left.legend(frameon=False)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run, collect, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("output/gumbel_stability"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2, 3], help="by commas (1,2,3)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (%(default)s)")
    parser.add_argument("--train", choices=FORMS.values(), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        return train(args.train, args.seeds[0], args.output)
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}. Allowed: whole numbers from 1.")
    train_all(args.output.resolve(), args.seeds, args.jobs)
    curves = collect(args.output, args.seeds)
    report = {
        "command": f"python benchmarks/gumbel_stability.py --seeds {','.join(map(str, args.seeds))}",
        "data": "synthetic",
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "curves": curves,
    }
    (ROOT / "benchmarks" / "gumbel_stability.json").write_text(json.dumps(report, indent=1) + "\n")
    try:
        draw(curves, ROOT / "docs" / "gumbel_stability.png")
    except UserError as error:
        print(f"No picture: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
