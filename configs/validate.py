"""Rules on values: choices, ranges, and keys that must agree. Each error names key, value and remedy."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode

from utils.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "DATALOADER.SAMPLER": ("softmax_triplet", "softmax"),
    "DATALOADER.CACHE": ("auto", "off", "device"),
    "SOLVER.OPTIMIZER_NAME": ("Adam", "AdamW", "SGD"),
    "SOLVER.AMP": ("auto", "bf16", "fp16", "off"),
    "SOLVER.SCHEDULE": ("cosine", "original"),
    "MODEL.MISSING": ("zero", "drop"),
    "DATASETS.PROTOCOL": ("camera", "scene"),
    "TEST.FEAT": ("auto", "ori", "moe", "sdtps", "all"),
    "TEST.NECK_FEAT": ("before", "after"),
    "TEST.MISS": ("nothing", "r", "n", "t", "rn", "rt", "nt"),
}

RANGES: dict[str, str] = {
    "MODEL.STRIDE_SIZE": "[0, inf)",
    "MODEL.SIE_COE": "(0, inf)",
    "MODEL.DROP_PATH": "[0, 1)",
    "MODEL.FREEZE_BLOCKS": "[0, inf)",
    "MODEL.HEAD": "[1, inf)",
    "MODEL.ID_LOSS_WEIGHT": "[0, inf)",
    "MODEL.TRIPLET_LOSS_WEIGHT": "[0, inf)",
    "MODEL.SDTPS_BLOCK": "[0, inf)",
    "MODEL.SDTPS_SPARSE_RATIO": "(0, 1]",
    "MODEL.SDTPS_AGGR_RATIO": "(0, 1]",
    "MODEL.SDTPS_BETA": "[0, 0.5]",
    "MODEL.SDTPS_GUMBEL_TAU": "(0, inf)",
    "MODEL.SDTPS_LOSS_WEIGHT": "[0, inf)",
    "INPUT.SIZE_TRAIN": "[1, 4096]",
    "INPUT.SIZE_TEST": "[1, 4096]",
    "INPUT.PROB": "[0, 1]",
    "INPUT.RE_PROB": "[0, 1]",
    "INPUT.PADDING": "[0, 256]",
    "INPUT.PIXEL_STD": "(0, inf)",
    "INPUT.MODALITY_DROPOUT": "[0, 1)",
    "DATASETS.VAL_IDS": "[0, inf)",
    "SYNTHETIC.TRAIN_IDS": "[1, inf)",
    "SYNTHETIC.TEST_IDS": "[1, inf)",
    "SYNTHETIC.TRAIN_IMAGES": "[1, inf)",
    "SYNTHETIC.TEST_IMAGES": "[1, inf)",
    "SYNTHETIC.SIZE": "[16, 4096]",
    "SYNTHETIC.DIFFICULTY": "[0, 1]",
    "SYNTHETIC.SEED": "[0, inf)",
    "DATALOADER.NUM_WORKERS": "[0, 256]",
    "DATALOADER.NUM_INSTANCE": "[1, inf)",
    "SOLVER.MAX_EPOCHS": "[1, inf)",
    "SOLVER.BASE_LR": "(0, inf)",
    "SOLVER.BACKBONE_LR": "(0, inf)",
    "SOLVER.LAYER_DECAY": "(0, 1]",
    "SOLVER.BIAS_LR_FACTOR": "(0, inf)",
    "SOLVER.MOMENTUM": "[0, 1)",
    "SOLVER.MARGIN": "[0, inf)",
    "SOLVER.WEIGHT_DECAY": "[0, inf)",
    "SOLVER.WEIGHT_DECAY_BIAS": "[0, inf)",
    "SOLVER.WARMUP_EPOCHS": "[0, inf)",
    "SOLVER.WARMUP_START": "(0, 1]",
    "SOLVER.MIN_LR_FACTOR": "[0, 1]",
    "SOLVER.LR_NOISE": "[0, 1)",
    "SOLVER.CLIP_GRAD_NORM": "[0, inf)",
    "SOLVER.IMS_PER_BATCH": "[1, inf)",
    "SOLVER.ACCUMULATE": "[1, inf)",
    "SOLVER.SEED": "[0, inf)",
    "SOLVER.LOG_PERIOD": "[1, inf)",
    "SOLVER.EVAL_PERIOD": "[1, inf)",
    "SOLVER.CHECKPOINT_PERIOD": "[1, inf)",
    "TEST.IMS_PER_BATCH": "[1, inf)",
}


@dataclass(frozen=True)
class Inert:
    """Keys that could change nothing under a condition: setting one away from its default is then refused."""

    keys: str
    """One key, or a prefix ending in *."""
    when: Callable[[CfgNode], bool]
    because: str
    remedy: str
    warn: bool = False
    """Only warn: the original's own YAMLs carry the key where it does nothing, or a short trial meets a longer YAML."""


def _score_unused(model: CfgNode) -> bool:
    """With every patch kept and no Gumbel gradient, nothing reads the score."""
    return model.USE_SDTPS and _keeps_all(model) and not model.SDTPS_USE_GUMBEL


def _keeps_all(model: CfgNode) -> bool:
    ratio = model.SDTPS_SPARSE_RATIO
    return all(r == 1 for r in ratio) if isinstance(ratio, list) else ratio == 1


def _score_learns(model: CfgNode) -> bool:
    """Whether a gradient of the score arrives at a parameter: the predictor's, or through the attention another's."""
    of_predictor = model.SDTPS_USE_PREDICTOR and model.SDTPS_BETA < 0.5
    of_attention = not (model.SDTPS_DETACH_ATTENTION or (model.SDTPS_USE_PREDICTOR and model.SDTPS_BETA == 0))
    return _branch_trained(model) and (of_predictor or (of_attention and _tokens_learn(model)))


def _branch_trained(model: CfgNode) -> bool:
    """Whether a loss depends on what SDTPS selects: its own, or inside the backbone every one."""
    return model.SDTPS_LOSS_WEIGHT > 0 or model.SDTPS_BLOCK not in (0, [0])


def _tokens_learn(model: CfgNode) -> bool:
    """Whether a gradient of the tokens that SDTPS scores arrives at a parameter in front of it."""
    blocks = model.SDTPS_BLOCK if isinstance(model.SDTPS_BLOCK, list) else [model.SDTPS_BLOCK]
    if model.SIE_CAMERA or len(blocks) > 1:  # the first place makes the tokens of the second
        return True
    if blocks == [0]:
        return model.GLOBAL_LOCAL or not model.FROZEN
    return not model.FROZEN and blocks[0] > model.FREEZE_BLOCKS


def _gumbel_gradient_lost(model: CfgNode) -> bool:
    """Gumbel is on, but no gradient of D can arrive at a parameter, and the selection is not sampled either."""
    return (
        model.USE_SDTPS
        and model.SDTPS_USE_GUMBEL
        and not model.SDTPS_GUMBEL_SAMPLE
        and not (model.SDTPS_MASK_AGGREGATION and _score_learns(model))
    )


def _geometry_is_fixed(given: CfgNode) -> bool:
    """Whether the augmentation draws no flip, crop or rectangle."""
    return given.PROB in (0, 1) and given.PADDING == 0 and given.RE_PROB == 0


def _no_descent(solver: CfgNode) -> bool:
    """Whether no epoch is left for the cosine after its first, at the full rate."""
    last = solver.MAX_EPOCHS - 1
    return last == 0 or (solver.SCHEDULE == "cosine" and last <= solver.WARMUP_EPOCHS)


INERT: tuple[Inert, ...] = (
    Inert(
        "MODEL.SDTPS_*",
        lambda c: not c.MODEL.USE_SDTPS,
        "MODEL.USE_SDTPS is False",
        "set MODEL.USE_SDTPS: True",
    ),
    Inert(
        "MODEL.SDTPS_GUMBEL_*",
        lambda c: not c.MODEL.SDTPS_USE_GUMBEL,
        "MODEL.SDTPS_USE_GUMBEL is False",
        "set MODEL.SDTPS_USE_GUMBEL: True",
    ),
    Inert(
        "MODEL.SDTPS_MASK_AGGREGATION",
        lambda c: not c.MODEL.SDTPS_USE_GUMBEL,
        "MODEL.SDTPS_USE_GUMBEL is False, so D is a constant 1 on the kept patches",
        "set MODEL.SDTPS_USE_GUMBEL: True",
    ),
    Inert(
        "MODEL.SDTPS_USE_GUMBEL",
        lambda c: _gumbel_gradient_lost(c.MODEL),
        "the gradient of D reaches no parameter (no mask in the aggregation, a SDTPS_LOSS_WEIGHT of 0, or no predictor "
        "with a weight in the score and a detached attention)",
        "set MODEL.SDTPS_MASK_AGGREGATION: True and keep the predictor, or set MODEL.SDTPS_GUMBEL_SAMPLE: True",
    ),
    *(
        Inert(
            f"MODEL.{key}",
            lambda c: not _score_learns(c.MODEL),
            "no gradient of the score reaches a parameter (no predictor with a weight in the score and a detached "
            "attention, or a SDTPS_LOSS_WEIGHT of 0)",
            "set MODEL.SDTPS_USE_PREDICTOR: True, with MODEL.SDTPS_BETA below 0.5 and MODEL.SDTPS_LOSS_WEIGHT above 0",
        )
        for key in ("SDTPS_GUMBEL_TAU", "SDTPS_MASK_AGGREGATION")
    ),
    Inert(
        "MODEL.SDTPS_GUMBEL_SAMPLE",
        lambda c: _keeps_all(c.MODEL),
        "MODEL.SDTPS_SPARSE_RATIO is 1 and every patch is kept",
        "lower MODEL.SDTPS_SPARSE_RATIO",
    ),
    Inert(
        "MODEL.SDTPS_GUMBEL_TAU",
        lambda c: not c.MODEL.SDTPS_MASK_AGGREGATION,
        "MODEL.SDTPS_MASK_AGGREGATION is False and the soft decision goes nowhere",
        "set MODEL.SDTPS_MASK_AGGREGATION: True",
    ),
    *(
        Inert(
            f"MODEL.{key}",
            lambda c: _score_unused(c.MODEL),
            "MODEL.SDTPS_SPARSE_RATIO is 1, so every patch is kept and nothing reads the score",
            "lower MODEL.SDTPS_SPARSE_RATIO",
        )
        for key in ("SDTPS_BETA", "SDTPS_USE_PREDICTOR", "SDTPS_DETACH_ATTENTION")
    ),
    Inert(
        "MODEL.SDTPS_BETA",
        lambda c: not c.MODEL.SDTPS_USE_PREDICTOR,
        "MODEL.SDTPS_USE_PREDICTOR is False, and the score is then s_im + s_m2 + s_m3",
        "set MODEL.SDTPS_USE_PREDICTOR: True",
    ),
    Inert(
        "MODEL.SDTPS_DETACH_ATTENTION",
        lambda c: c.MODEL.SDTPS_USE_PREDICTOR and c.MODEL.SDTPS_BETA == 0,
        "MODEL.SDTPS_BETA is 0 and the attention scores have no weight",
        "raise MODEL.SDTPS_BETA",
    ),
    Inert(
        "MODEL.SDTPS_DETACH_ATTENTION",
        lambda c: not (_branch_trained(c.MODEL) and _tokens_learn(c.MODEL)),
        "the attention scores have no parameters, and nothing in front of them is trained (MODEL.FROZEN, "
        "MODEL.FREEZE_BLOCKS), or MODEL.SDTPS_LOSS_WEIGHT is 0",
        "train the backbone and set MODEL.SDTPS_LOSS_WEIGHT above 0",
    ),
    Inert("MODEL.HEAD", lambda c: not c.MODEL.ATM, "MODEL.ATM is False", "set MODEL.ATM: True", warn=True),
    Inert(
        "MODEL.FREEZE_BLOCKS",
        lambda c: c.MODEL.FROZEN,
        "MODEL.FROZEN is True and the whole backbone is left as it is",
        "set MODEL.FROZEN: False",
    ),
    Inert(
        "SOLVER.BACKBONE_LR",
        lambda c: c.MODEL.FROZEN and not c.MODEL.SIE_CAMERA,
        "MODEL.FROZEN is True and nothing of the backbone learns",
        "set MODEL.FROZEN: False",
    ),
    Inert(
        "SOLVER.LAYER_DECAY",
        lambda c: c.MODEL.FROZEN,
        "MODEL.FROZEN is True, and only the camera embedding, if any, learns, at the full BACKBONE_LR",
        "set MODEL.FROZEN: False",
    ),
    *(
        Inert(
            key,
            lambda c: not (c.MODEL.USE_SDTPS or c.MODEL.HDM or c.MODEL.GLOBAL_LOCAL),
            "neck and classifier learn no bias, so that there is none outside the backbone",
            "set MODEL.USE_SDTPS, MODEL.HDM or MODEL.GLOBAL_LOCAL: True",
        )
        for key in ("SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS")
    ),
    Inert(
        "SOLVER.MIN_LR_FACTOR",
        lambda c: _no_descent(c.SOLVER),
        "no epoch is left after the warm-up and one at the full rate",
        "raise SOLVER.MAX_EPOCHS",
        warn=True,
    ),
    Inert(
        "INPUT.SYNC_AUG",
        lambda c: _geometry_is_fixed(c.INPUT),
        "there is no random flip, crop or erasing to share (INPUT.PROB, INPUT.PADDING, INPUT.RE_PROB)",
        "raise one of them",
    ),
    Inert(
        "DATASETS.PROTOCOL",
        lambda c: c.DATASETS.NAMES.lower() != "manifest",
        "DATASETS.NAMES is not 'manifest', and the other data sets have a protocol of their own",
        "set DATASETS.NAMES: manifest",
    ),
    Inert(
        "MODEL.SIE_COE",
        lambda c: not c.MODEL.SIE_CAMERA,
        "MODEL.SIE_CAMERA is False",
        "set MODEL.SIE_CAMERA: True",
    ),
    Inert(
        "SYNTHETIC.*",
        lambda c: c.DATASETS.NAMES.lower() != "synthetic",
        "DATASETS.NAMES is not 'synthetic'",
        "set DATASETS.NAMES: synthetic",
    ),
    *(
        Inert(
            key,
            lambda c: c.DATALOADER.SAMPLER == "softmax" or c.MODEL.TRIPLET_LOSS_WEIGHT == 0,
            "there is no triplet loss (DATALOADER.SAMPLER: softmax, or MODEL.TRIPLET_LOSS_WEIGHT: 0)",
            "set DATALOADER.SAMPLER: softmax_triplet and a MODEL.TRIPLET_LOSS_WEIGHT above 0",
        )
        for key in ("SOLVER.MARGIN", "MODEL.NO_MARGIN")
    ),
    *(
        Inert(
            key,
            lambda c: c.DATALOADER.SAMPLER == "softmax",
            "DATALOADER.SAMPLER is 'softmax'",
            "set DATALOADER.SAMPLER: softmax_triplet",
        )
        for key in ("DATALOADER.NUM_INSTANCE", "MODEL.TRIPLET_LOSS_WEIGHT")
    ),
    Inert("SOLVER.MARGIN", lambda c: c.MODEL.NO_MARGIN, "MODEL.NO_MARGIN is True", "set MODEL.NO_MARGIN: False"),
    Inert(
        "MODEL.IF_LABELSMOOTH",
        lambda c: c.MODEL.ID_LOSS_WEIGHT == 0,
        "MODEL.ID_LOSS_WEIGHT is 0",
        "raise MODEL.ID_LOSS_WEIGHT",
    ),
    Inert(
        "SOLVER.MOMENTUM",
        lambda c: c.SOLVER.OPTIMIZER_NAME != "SGD",
        "only SGD has a momentum",
        "set SOLVER.OPTIMIZER_NAME: SGD",
    ),
    Inert(
        "SOLVER.WARMUP_START",
        lambda c: c.SOLVER.WARMUP_EPOCHS == 0,
        "SOLVER.WARMUP_EPOCHS is 0",
        "raise SOLVER.WARMUP_EPOCHS",
    ),
    Inert(
        "DATALOADER.CACHE_DIR",
        lambda c: c.DATALOADER.CACHE == "off",
        "DATALOADER.CACHE is 'off'",
        "set DATALOADER.CACHE: auto",
    ),
)


def validate(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    """Check a merged configuration against the rules of this file; `defaults` by dotted key.

    Raises:
        UserError: the first rule that is broken.
    """
    for key, allowed in CHOICES.items():
        if get(cfg, key) not in allowed:
            raise UserError(f"{key} is {get(cfg, key)!r}. Allowed: {', '.join(map(repr, allowed))}.")
    for key, interval in RANGES.items():
        value = get(cfg, key)
        for number in value if isinstance(value, list) else [value]:
            if not _inside(number, interval):
                raise UserError(f"{key} is {value}. Allowed: {interval}.")
    _check_places(cfg.MODEL)
    for rule in INERT:
        if not rule.when(cfg):
            continue
        for key, default in defaults.items():
            named = key == rule.keys or (rule.keys.endswith("*") and key.startswith(rule.keys[:-1]))
            if named and get(cfg, key) != default:
                message = (
                    f"{key} is {get(cfg, key)!r}, but it would have no effect: {rule.because}. "
                    f"Either {rule.remedy}, or remove {key}."
                )
                if not rule.warn:
                    raise UserError(message)
                warnings.warn(message, stacklevel=3)
    _check_together(cfg)


def _check_together(cfg: CfgNode) -> None:
    """Rules that tie several keys to each other."""
    if cfg.INPUT.SIZE_TRAIN != cfg.INPUT.SIZE_TEST:
        raise UserError(
            f"INPUT.SIZE_TRAIN is {cfg.INPUT.SIZE_TRAIN} and INPUT.SIZE_TEST is {cfg.INPUT.SIZE_TEST}. The position "
            "embedding has one size, so the two must be equal."
        )
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if cfg.DATALOADER.SAMPLER == "softmax_triplet":
        if batch % instances:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch} and DATALOADER.NUM_INSTANCE {instances}, which does not "
                "divide it. A batch "
                f"is P identities of NUM_INSTANCE images: take a multiple of {instances}, such as "
                f"{(batch // instances + 1) * instances}."
            )
        if cfg.MODEL.TRIPLET_LOSS_WEIGHT > 0 and (instances < 2 or batch == instances):
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch} and DATALOADER.NUM_INSTANCE {instances}. The triplet loss "
                "needs at least two "
                "images per identity and two identities per batch; else set DATALOADER.SAMPLER: softmax."
            )
    if batch < cfg.SOLVER.ACCUMULATE:
        raise UserError(
            f"SOLVER.ACCUMULATE is {cfg.SOLVER.ACCUMULATE}, more parts than the {batch} images of SOLVER.IMS_PER_BATCH."
        )
    if cfg.MODEL.ID_LOSS_WEIGHT == 0 and (cfg.MODEL.TRIPLET_LOSS_WEIGHT == 0 or cfg.DATALOADER.SAMPLER == "softmax"):
        raise UserError("MODEL.ID_LOSS_WEIGHT is 0 and there is no triplet loss either: nothing would be trained.")
    model = cfg.MODEL
    branches = model.SIE_CAMERA or model.USE_SDTPS or model.HDM or model.GLOBAL_LOCAL
    if model.FROZEN and model.ID_LOSS_WEIGHT == 0 and not branches:
        raise UserError(
            "MODEL.FROZEN is True and MODEL.ID_LOSS_WEIGHT is 0: the triplet loss is on features of the backbone "
            "alone, so that nothing would be trained. Raise MODEL.ID_LOSS_WEIGHT or set MODEL.FROZEN: False."
        )
    if cfg.SOLVER.WARMUP_EPOCHS >= cfg.SOLVER.MAX_EPOCHS:
        raise UserError(
            f"SOLVER.WARMUP_EPOCHS is {cfg.SOLVER.WARMUP_EPOCHS} of SOLVER.MAX_EPOCHS {cfg.SOLVER.MAX_EPOCHS}. "
            "The warm-up must "
            "end before the training does: lower WARMUP_EPOCHS or raise MAX_EPOCHS."
        )
    if cfg.MODEL.ATM and not cfg.MODEL.HDM:
        raise UserError(
            "MODEL.ATM is True, but MODEL.HDM is False: the experts work on HDM's features. Set it True, too."
        )
    for feat, key in (("sdtps", "USE_SDTPS"), ("moe", "HDM")):
        if feat == cfg.TEST.FEAT and not cfg.MODEL[key]:
            raise UserError(f"TEST.FEAT is {feat!r}, but MODEL.{key} is False. Set it True, or TEST.FEAT: auto.")
    if any(cfg.MODEL.STRIDE_SIZE) and not all(cfg.MODEL.STRIDE_SIZE):
        raise UserError(
            f"MODEL.STRIDE_SIZE is {cfg.MODEL.STRIDE_SIZE}. Allowed: two numbers of pixels from 1, or [0, 0] for the "
            "size of the patch."
        )
    device = cfg.MODEL.DEVICE
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,2})?", device):  # torch takes cuda:300 for cuda:44
        raise UserError(f"MODEL.DEVICE is {device!r}. Allowed: 'auto', 'cpu', 'cuda', 'cuda:N'.")
    if not cfg.OUTPUT_DIR:
        raise UserError("OUTPUT_DIR is empty. Set it to the folder that the run writes to.")


def _check_places(model: CfgNode) -> None:
    """SDTPS_BLOCK and the two ratios, each one value or a list."""
    blocks = model.SDTPS_BLOCK if isinstance(model.SDTPS_BLOCK, list) else [model.SDTPS_BLOCK]
    if not blocks or blocks != sorted(set(blocks)) or (0 in blocks and len(blocks) > 1):
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}. Allowed: 0 (after the last block), a number of blocks, or an "
            "ascending list of such numbers without 0."
        )
    for key in ("SDTPS_SPARSE_RATIO", "SDTPS_AGGR_RATIO"):
        if isinstance(model[key], list) and len(model[key]) != len(blocks):
            raise UserError(
                f"MODEL.{key} is {model[key]} and MODEL.SDTPS_BLOCK {model.SDTPS_BLOCK}. Give one ratio, or a list "
                "with one for each place."
            )


def get(cfg: CfgNode, key: str) -> Any:
    """The value under a dotted key."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _inside(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number > low if interval[0] == "(" else number >= low
    below = number < high if interval[-1] == ")" else number <= high
    return above and below and not math.isnan(number)
