"""From configuration and checkpoint to what is drawn: the only file of this package that reads keys."""

from __future__ import annotations

from yacs.config import CfgNode

from data.build import build_data
from engine.build import build_evaluator, find_weights, load_model
from engine.checkpoint import load_checkpoint
from engine.precision import resolve_device
from tools.visualize.subject import Subject


def build_subject(cfg: CfgNode, weights: str = "") -> Subject:
    """Load the model of a checkpoint and the test set.

    Args:
        cfg: from `configs.get_cfg`.
        weights: the checkpoint; '' is TEST.WEIGHT, or else OUTPUT_DIR/best.pth.

    Raises:
        UserError: the checkpoint is missing or belongs to another model, or the data set is missing.
    """
    device = resolve_device(cfg.MODEL.DEVICE)
    path = find_weights(cfg, weights)
    content = load_checkpoint(path)
    data = build_data(cfg)
    model = load_model(cfg, data, content, str(path)).to(device)
    facts = {
        "data set": f"{cfg.DATASETS.NAMES}, {len(data.test.query)} queries, {len(data.test.gallery)} gallery images",
        "backbone": cfg.MODEL.TRANSFORMER_TYPE,
        "checkpoint": f"{path}, epoch {content['epoch']}" if "epoch" in content else str(path),
    }
    return Subject(model, build_evaluator(cfg, data.test, model, device), tuple(cfg.INPUT.SIZE_TRAIN), facts)
