"""From configuration to evaluator and trainer: the only file of this package that reads the keys."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from data.build import build_augmentation, build_eval_loader, build_normalization, build_train_loader
from data.masks import patch_coverage
from data.splits import EvalSplit, ReIDData
from engine.checkpoint import BEST, Checkpoint, load_model_state
from engine.compiled import CompiledModel
from engine.evaluate import Evaluator
from engine.parallel import GatheredLoss, parallel_forward
from engine.precision import resolve_precision
from engine.run_folder import RunFolder
from engine.train import Trainer, TrainOptions, TrainState
from modeling import build_loss, build_model, build_observers
from modeling.demo_checkpoints import from_original
from modeling.model import ReIDModel
from solver import build_optimizer, build_schedule
from utils import distributed


def find_weights(cfg: CfgNode, given: str = "") -> Path:
    """Return the checkpoint to evaluate: the `given` one, else TEST.WEIGHT, else OUTPUT_DIR/best.pth."""
    return Path(given or cfg.TEST.WEIGHT or Path(cfg.OUTPUT_DIR) / BEST)


def load_model(cfg: CfgNode, data: ReIDData, content: dict[str, Any], source: str) -> ReIDModel:
    """Build the model of the checkpoint `content` (also a bare state dict, or the original code's), on the CPU.

    Raises:
        UserError: the configuration describes another model; names `source`.
    """
    build = partial(build_model, cfg, pretrained=False)
    checkpoint = Checkpoint.from_content(from_original(content, source, build))
    model = build(
        num_classes=len(checkpoint.pids or data.train_pids), num_cameras=checkpoint.num_cameras or data.num_cameras
    )
    load_model_state(model, checkpoint.model, source)
    return model


def build_evaluator(cfg: CfgNode, split: EvalSplit, model: ReIDModel, device: torch.device) -> Evaluator:
    """Build an evaluator of `model` on `split`.

    Raises:
        UserError: the split has a camera that the model's camera embedding does not know, or no query has a match.
    """
    split.check_matches()
    model.backbone.check_cameras(sample.camera for sample in split.samples)
    return Evaluator(
        split=split,
        loader=build_eval_loader(cfg, split, device, with_masks="coverage" in model.needs),
        transform=build_normalization(cfg),
        precision=resolve_precision(cfg.SOLVER.AMP, device),
        normalize_features=cfg.TEST.FEAT_NORM,
        rerank=cfg.TEST.RE_RANKING,
        flip=cfg.TEST.FLIP,
        missing=cfg.TEST.MISS,
        coverage=patch_coverage(split.samples, model.backbone.grid) if model.selections else None,
    )


def build_trainer(
    cfg: CfgNode, data: ReIDData, model: ReIDModel, device: torch.device, *, evaluator: Evaluator, folder: RunFolder
) -> Trainer:
    """Build a trainer of `model`, which is on `device` already, from its first epoch."""
    solver = cfg.SOLVER
    precision = resolve_precision(solver.AMP, device)
    optimizer = build_optimizer(cfg, model)
    options = TrainOptions(
        max_epochs=solver.MAX_EPOCHS,
        seed=solver.SEED,
        eval_period=solver.EVAL_PERIOD,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        log_period=solver.LOG_PERIOD,
        clip_grad_norm=solver.CLIP_GRAD_NORM,
        eval_untrained=cfg.TEST.UNTRAINED,
        metadata={"config": cfg.dump(), "pids": data.train_pids, "num_cameras": data.num_cameras},
    )
    forward, loss = CompiledModel(model) if solver.COMPILE else model, build_loss(cfg)
    if distributed.is_active():
        forward, loss = parallel_forward(forward), GatheredLoss(loss)
    observers = build_observers(cfg, model)
    return Trainer(
        TrainState(model, optimizer, build_schedule(cfg, optimizer), precision.make_scaler()),
        options,
        loss=loss,
        loader=build_train_loader(cfg, data, device, with_masks="coverage" in model.needs),
        augment=build_augmentation(cfg),
        evaluate=replace(evaluator, observers=observers),
        folder=folder,
        precision=precision,
        forward=forward,
        observers=observers,
    )
