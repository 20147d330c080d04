"""Evaluate a checkpoint: python test_net.py --config_file F [--weights PATH] [--missing all] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
import logging
import sys

from configs import DEFAULT_CONFIG, get_cfg
from data.build import build_data
from engine.build import build_evaluator, find_weights, load_model
from engine.checkpoint import load_checkpoint
from engine.precision import resolve_device
from engine.results import format_table, setting_rows
from engine.run_folder import TEST_RESULTS, RunFolder
from utils import distributed
from utils.logging import setup_logging
from utils.script import run_script

logger = logging.getLogger("test_net")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
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
    folder = RunFolder(cfg.OUTPUT_DIR)  # before the evaluation, so that a folder that cannot be written stops it early

    data = build_data(cfg)
    model = load_model(cfg, data, content, str(weights)).to(device)
    evaluator = build_evaluator(cfg, data.test, model, device)
    rows = setting_rows(evaluator, model, args.missing, name=weights.name)
    folder.write_results({"weights": str(weights), "headline": model.descriptor, "rows": rows}, name=TEST_RESULTS)
    logger.info("%s\nMetrics: %s", format_table(rows), folder.path / TEST_RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
