"""From configuration and checkpoint to what is drawn: the only file of this package that knows the keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from data.build import build_data
from engine.build import build_evaluator, find_weights, load_model
from engine.checkpoint import load_checkpoint
from engine.precision import resolve_device
from tools.visualize.gallery import Scene


@dataclass(frozen=True)
class Source:
    """Where a scene came from, for the page."""

    weights: Path
    epoch: int | None
    data_set: str
    backbone: str


def build_scene(cfg: CfgNode, weights: str = "") -> tuple[Scene, Source]:
    """The model of a checkpoint and the test set it is looked at with.

    Args:
        cfg: from `configs.get_cfg`.
        weights: the checkpoint; '' takes TEST.WEIGHT, else OUTPUT_DIR/best.pth.

    Raises:
        UserError: there is no such checkpoint, it is of another model, or the data set is missing.
    """
    device = resolve_device(cfg.MODEL.DEVICE)
    path = find_weights(cfg, weights)
    content = load_checkpoint(path)
    data = build_data(cfg)
    model = load_model(cfg, data, content, str(path)).to(device)
    evaluator = build_evaluator(cfg, data.test, model, device)
    scene = Scene(model, evaluator, evaluator.loader.dataset.__getitems__, tuple(cfg.INPUT.SIZE_TRAIN))
    return scene, Source(path, content.get("epoch"), cfg.DATASETS.NAMES, cfg.MODEL.TRANSFORMER_TYPE)
