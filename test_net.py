"""Evaluate a checkpoint: python test_net.py --config_file F [--weights PATH] [--missing all] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from configs import DEFAULT_CONFIG, get_cfg
from data.build import build_data
from engine.build import build_evaluator, find_weights, load_model
from engine.checkpoint import load_checkpoint
from engine.evaluate import Evaluator, format_table, result_row
from engine.missing import NOTHING, mean_row, parse_settings, title
from engine.precision import resolve_device
from engine.run_folder import RunFolder
from modeling.model import ReIDModel
from utils import distributed
from utils.logging import setup_logging
from utils.script import run_script

logger = logging.getLogger("test_net")

TEST_RESULTS = "test_results.json"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    parser.add_argument("--weights", default="", help="checkpoint; default: TEST.WEIGHT, else OUTPUT_DIR/best.pth")
    parser.add_argument("--missing", default="", help="modalities absent: 'all' settings, or some: none,r,n,t,rn,rt,nt")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override")
    return parser.parse_args(argv)


def main() -> int:
    """Score one checkpoint on the test set."""
    args = parse_args()
    distributed.init()
    setup_logging()
    cfg = get_cfg(args.config_file, args.opts)
    device = resolve_device(cfg.MODEL.DEVICE)
    weights = find_weights(cfg, args.weights)
    content = load_checkpoint(weights)
    folder = RunFolder(cfg.OUTPUT_DIR)  # before the evaluation, lest its result had nowhere to go

    data = build_data(cfg)
    model = load_model(cfg, data, content, str(weights)).to(device)
    rows = score_settings(build_evaluator(cfg, data.test, model, device), model, args.missing, name=weights.name)
    folder.write_results({"weights": str(weights), "headline": model.descriptor, "rows": rows}, name=TEST_RESULTS)
    logger.info("%s\nFigures: %s", format_table(rows), folder.path / TEST_RESULTS)
    return 0


def score_settings(evaluator: Evaluator, model: ReIDModel, missing: str, *, name: str) -> list[dict[str, Any]]:
    """Result rows: one for TEST.MISS, or one for each setting that `missing` names and their mean."""
    if not missing:
        return [result_row(name, evaluator(model))]
    settings = parse_settings(missing)
    if missing == "all":  # of data that lacks a modality everywhere, some settings leave nothing
        settings = tuple(setting for setting in settings if not evaluator.num_lost(setting))
    records = evaluator.score(model, settings)
    rows = [result_row(f"{title(setting)} absent", record) for setting, record in records.items()]
    with_absent = [row for row, setting in zip(rows, settings, strict=True) if setting != NOTHING]
    if len(with_absent) > 1:
        rows.append({"name": "mean of those with any absent", "eval": mean_row(with_absent)})
    return rows


if __name__ == "__main__":
    sys.exit(run_script(main))
