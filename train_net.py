"""Train a model and score it: python train_net.py --config_file F [--resume auto or PATH] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from typing import Any

import timm
import torch
from yacs.config import CfgNode

from configs import DEFAULT_CONFIG, get_cfg
from configs.loading import config_changes
from data.build import build_data
from engine.build import build_evaluator, build_trainer, resume
from engine.checkpoint import BEST, load_checkpoint, load_model_state, load_resumable
from engine.evaluate import Evaluator, format_table, result_row
from engine.interrupt import Interrupted
from engine.precision import resolve_device, resolve_precision
from engine.run_folder import CONFIG, LOG, RESULTS, RunFolder
from engine.train import Trainer
from modeling import build_model
from modeling.complexity import Complexity, count_complexity
from utils import distributed
from utils.errors import UserError
from utils.logging import setup_logging
from utils.memory import peak_memory_mib
from utils.provenance import processor
from utils.script import run_script
from utils.seeding import seed_all

logger = logging.getLogger("train_net")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    parser.add_argument(
        "--resume",
        default="",
        help="'auto' continues the run in OUTPUT_DIR, if there is one; or a checkpoint",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override, such as MODEL.SDTPS_BETA 0.1")
    return parser.parse_args(argv)


def main() -> int:
    """Train as the command line says; 0 when the run is complete."""
    args = parse_args()
    distributed.init()
    setup_logging()
    cfg = get_cfg(args.config_file, args.opts)
    device = resolve_device(cfg.MODEL.DEVICE)
    precision = resolve_precision(cfg.SOLVER.AMP, device)

    folder = RunFolder(cfg.OUTPUT_DIR)
    checkpoint = load_resumable(args.resume, folder.path) if args.resume else None
    _check_same_start(checkpoint, folder)
    goes_on = checkpoint is not None and folder.holds(args.resume)
    if not goes_on and (aside := folder.set_aside()):
        logger.info("%s held an earlier run, which is now in %s.", folder.path, aside)
    setup_logging(folder.path / LOG)
    folder.write_text(CONFIG, cfg.dump())
    folder.keep_records(checkpoint["epoch"] if goes_on else -1)

    data = build_data(cfg)
    seed_all(cfg.SOLVER.SEED)
    model = build_model(
        cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras, pretrained=checkpoint is None
    )
    complexity = count_complexity(model, size_hw=tuple(cfg.INPUT.SIZE_TRAIN))
    logger.info("%s on %s, %s", cfg.MODEL.TRANSFORMER_TYPE, device, complexity)
    logger.info(
        "%s: %d identities, %d triplets to train; %d queries, %d gallery",
        cfg.DATASETS.NAMES, len(data.train_pids), len(data.train), len(data.test.query), len(data.test.gallery),
    )  # fmt: skip
    model.to(device)
    test = build_evaluator(cfg, data.test, model, device)
    validation = build_evaluator(cfg, data.validation, model, device) if data.validation else None
    trainer = build_trainer(cfg, data, model, evaluator=validation or test, folder=folder, precision=precision)
    if checkpoint is not None:
        resume(trainer, checkpoint, args.resume)
        for change in config_changes(checkpoint["config"], cfg):
            logger.info("warning: resuming with another configuration: %s", change)

    try:
        trainer.fit()
    except Interrupted as stop:
        logger.info("%s: continue with --resume auto.", str(stop).capitalize())
        return stop.exit_code
    finally:
        folder.close()
    distributed.barrier()  # the main process has written its records
    rows = _result_rows(trainer, folder, test)
    folder.write_results(_results(cfg, trainer, rows, complexity))
    logger.info("\n%s", format_table(rows))
    _log_selection(rows)
    logger.info("Figures: %s", folder.path / RESULTS)
    return 0


def _check_same_start(checkpoint: dict[str, Any] | None, folder: RunFolder) -> None:
    """Make sure that all processes begin at the same step."""
    start = 0 if checkpoint is None else (checkpoint["epoch"] << 32) + checkpoint["step"] + 1
    if distributed.agree(start) != start:
        raise UserError(
            f"The processes of this run do not find the same checkpoint in OUTPUT_DIR {folder.path}. Set it to a "
            "folder that all of them share."
        )


def _result_rows(trainer: Trainer, folder: RunFolder, test: Evaluator) -> list[dict[str, Any]]:
    """Untrained, last and best, the latter saying on what it was chosen.

    `test` scores what metrics.jsonl has no figures for: those there are of validation, or the run began elsewhere.
    """
    records = {record["epoch"]: record for record in folder.records() if "eval" in record}
    rows = [result_row("untrained (epoch 0)", records[0])] if 0 in records else []
    model, state, chosen_on = trainer.state.model, trainer.state, trainer.evaluate.split.name
    known = records if chosen_on == test.split.name else {}
    last = known.get(state.epoch) or {"epoch": state.epoch, **test(model)}
    rows.append(result_row(f"last (epoch {state.epoch})", last))
    if state.best:
        epoch = state.best["epoch"]
        if epoch not in known:
            load_model_state(model, load_checkpoint(folder.path / BEST)["model"], BEST)
        best = known.get(epoch) or {"epoch": epoch, **test(model)}
        rows.append(result_row(f"best (epoch {epoch}, chosen on the {chosen_on} set)", best))
    return rows


def _results(cfg: CfgNode, trainer: Trainer, rows: list[dict[str, Any]], complexity: Complexity) -> dict[str, Any]:
    """What results.json holds."""
    device = trainer.device
    speeds = [record["samples_per_s"] for record in trainer.folder.records() if "samples_per_s" in record]
    return {
        "data_set": cfg.DATASETS.NAMES,
        "headline": trainer.state.model.descriptor,
        "seed": cfg.SOLVER.SEED,
        "rows": rows,
        "complexity": complexity.as_dict(),
        "samples_per_s": sum(speeds) / len(speeds) if speeds else None,  # none where no epoch was trained here
        "peak_memory_mib": peak_memory_mib(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }


def _log_selection(rows: list[dict[str, Any]]) -> None:
    """One line on where the kept patches lie, where the data set knows it."""
    for row in rows:
        if "kept_on_object" in row.get("selection", ()):
            share = row["selection"]
            logger.info(
                "%s: %.1f %% of the area of kept patches is on the figure, %.1f %% of all patches.",
                row["name"], share["kept_on_object"], share["all_on_object"],
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_script(main))
