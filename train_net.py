"""Train a model and score it: python train_net.py --config_file F [--resume auto or PATH] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
import logging
import sys

import torch
from yacs.config import CfgNode

from configs import DEFAULT_CONFIG, get_cfg
from configs.loading import config_changes
from data.build import build_data
from data.splits import ReIDData
from engine.build import build_evaluator, build_trainer
from engine.checkpoint import Checkpoint, load_resumable
from engine.evaluate import Evaluator
from engine.interrupt import Interrupted
from engine.precision import resolve_device
from engine.results import log_rows, run_results, run_rows
from engine.run_folder import CONFIG, LOG, RESULTS, RunFolder
from engine.train import Trainer
from modeling import build_model
from modeling.complexity import Complexity, count_complexity
from utils import distributed
from utils.errors import UserError
from utils.logging import setup_logging
from utils.script import run_script
from utils.seeding import seed_all

logger = logging.getLogger("train_net")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    parser.add_argument("--resume", default="", help="a checkpoint, or 'auto' to continue a run in OUTPUT_DIR")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override, such as MODEL.SDTPS_BETA 0.1")
    return parser.parse_args(argv)


def main() -> int:
    """Train as the command line says; 0 when the run is complete."""
    args = parse_args()
    distributed.init()
    setup_logging()
    cfg = get_cfg(args.config_file, args.opts)
    device = resolve_device(cfg.MODEL.DEVICE)
    folder = RunFolder(cfg.OUTPUT_DIR)
    checkpoint = open_run(cfg, folder, args.resume)

    data = build_data(cfg)
    seed_all(cfg.SOLVER.SEED)
    model = build_model(
        cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras, pretrained=checkpoint is None
    )
    complexity = count_complexity(model, size_hw=tuple(cfg.INPUT.SIZE_TRAIN))
    log_start(cfg, data, complexity, device)
    model.to(device)
    test = build_evaluator(cfg, data.test, model, device)
    validation = build_evaluator(cfg, data.validation, model, device) if data.validation else None
    trainer = build_trainer(cfg, data, model, device, evaluator=validation or test, folder=folder)
    if checkpoint is not None:
        trainer.load(checkpoint)

    try:
        trainer.fit()
    except Interrupted as stop:
        logger.info("%s: continue with --resume auto.", str(stop).capitalize())
        return stop.exit_code
    finally:
        folder.close()
    report(cfg, trainer, test, complexity)
    return 0


def open_run(cfg: CfgNode, folder: RunFolder, resume: str) -> Checkpoint | None:
    """Start a run in `folder` or continue the one that is there; returns the checkpoint to continue from, if any."""
    checkpoint = load_resumable(resume, folder.path) if resume else None
    start = 0 if checkpoint is None else checkpoint.position + 1
    if distributed.all_reduce_max(start) != start:
        raise UserError(
            f"The processes of this run do not find the same checkpoint in OUTPUT_DIR {folder.path}. Set it to a "
            "folder that all of them share."
        )
    continues = checkpoint is not None and folder.holds(resume)
    if not continues and (aside := folder.set_aside()):
        logger.info("%s held an earlier run, which is now in %s.", folder.path, aside)
    setup_logging(folder.path / LOG)
    folder.write_text(CONFIG, cfg.dump())
    folder.keep_records(checkpoint.epoch if continues else -1)
    for change in config_changes(checkpoint.config, cfg) if checkpoint else ():
        logger.info("warning: resuming with another configuration: %s", change)
    return checkpoint


def log_start(cfg: CfgNode, data: ReIDData, complexity: Complexity, device: torch.device) -> None:
    """Log the model and the data set."""
    logger.info("%s on %s, %s", cfg.MODEL.TRANSFORMER_TYPE, device, complexity)
    logger.info(
        "%s: %d identities, %d samples to train; %d queries, %d gallery",
        cfg.DATASETS.NAMES, len(data.train_pids), len(data.train), len(data.test.query), len(data.test.gallery),
    )  # fmt: skip


def report(cfg: CfgNode, trainer: Trainer, test: Evaluator, complexity: Complexity) -> None:
    """Write results.json and log the result table."""
    distributed.barrier()  # the main process has written its records
    rows = run_rows(trainer, test)
    trainer.folder.write_results(run_results(trainer, rows, complexity, data_set=cfg.DATASETS.NAMES))
    log_rows(rows)
    logger.info("Metrics: %s", trainer.folder.path / RESULTS)


if __name__ == "__main__":
    sys.exit(run_script(main))
