"""Evaluate a checkpoint: python test_net.py --config_file F [--weights PATH] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator
from engine.checkpoint import BEST, load_checkpoint, load_model_state
from engine.evaluate import format_table, result_row
from engine.precision import resolve_device
from engine.run_folder import RunFolder
from modeling import build_model
from train_net import DEFAULT_CONFIG
from utils import distributed
from utils.errors import run_script
from utils.logging import setup_logging

logger = logging.getLogger("test_net")

TEST_RESULTS = "test_results.json"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    parser.add_argument("--weights", default="", help="checkpoint; default: TEST.WEIGHT, else OUTPUT_DIR/best.pth")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override")
    return parser.parse_args(argv)


def main() -> int:
    """Score one checkpoint on the test set."""
    args = parse_args()
    distributed.init()
    setup_logging()
    cfg = get_cfg(args.config_file, args.opts)
    device = resolve_device(cfg.MODEL.DEVICE)
    weights = Path(args.weights or cfg.TEST.WEIGHT or Path(cfg.OUTPUT_DIR) / BEST)
    content = load_checkpoint(weights)

    data = build_data(cfg)
    model = build_model(
        cfg,
        num_classes=len(content.get("pids", data.train_pids)),
        num_cameras=content.get("num_cameras", data.num_cameras),
        pretrained=False,
    )
    load_model_state(model, content.get("model", content), str(weights))
    model.to(device)
    record = build_evaluator(cfg, data.test, model, device)(model)
    row = result_row(weights.name, {"epoch": content.get("epoch"), **record})
    folder = RunFolder(cfg.OUTPUT_DIR)
    folder.write_results({"weights": str(weights), "headline": model.feat, "rows": [row]}, name=TEST_RESULTS)
    logger.info("%s\nFigures: %s", format_table([row]), folder.path / TEST_RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
