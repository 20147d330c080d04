"""Make what pictures show without training."""

import torch

from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator
from modeling import build_model
from tools.visualize.subject import Subject


def make_subject(config, *opts, weights=None):
    """Make a random model, with the `weights` that fit it, and the test set."""
    cfg = get_cfg(config, opts)
    data = build_data(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras)
    if weights is not None:
        model.load_state_dict(weights, strict=False)
    evaluator = build_evaluator(cfg, data.test, model, torch.device("cpu"))
    return Subject(model, evaluator, tuple(cfg.INPUT.SIZE_TRAIN), {})
