"""Rules on values: choices, ranges, and keys that must agree. Each error names key, value and remedy."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

from yacs.config import CfgNode

from configs.inert import INERT
from configs.places import as_list
from utils.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "DATALOADER.SAMPLER": ("softmax_triplet", "softmax"),
    "DATALOADER.CACHE": ("auto", "off", "device"),
    "SOLVER.OPTIMIZER_NAME": ("Adam", "AdamW", "SGD"),
    "SOLVER.AMP": ("auto", "bf16", "fp16", "off"),
    "SOLVER.SCHEDULE": ("cosine", "original"),
    "MODEL.MISSING": ("zero", "drop"),
    "DATASETS.PROTOCOL": ("camera", "scene"),
    "MODEL.SDTPS_SCORE": ("sdtps", "centre"),
    "MODEL.SDTPS_AGGREGATION": ("learned", "none"),
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

MIN_NOISE = 0.001
"""The least SOLVER.LR_NOISE other than 0: noise beyond it is drawn again, a thousand times for this one."""


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
    _check_effects(cfg, defaults)
    _check_batch(cfg)
    _check_together(cfg)


def _check_effects(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    """Refuse, or warn of, what is set away from its default and could change nothing."""
    for rule in INERT:
        if not rule.when(cfg):
            continue
        for key, default in defaults.items():
            if rule.names(key) and get(cfg, key) != default:
                message = (
                    f"{key} is {get(cfg, key)!r}, but it would have no effect: {rule.because}. Either {rule.remedy}, "
                    f"or leave {key} at its default, {default!r}."
                )
                if not rule.warn:
                    raise UserError(message)
                warnings.warn(message, stacklevel=4)


def _check_together(cfg: CfgNode) -> None:
    """Rules that tie several keys to each other."""
    if cfg.INPUT.SIZE_TRAIN != cfg.INPUT.SIZE_TEST:
        raise UserError(
            f"INPUT.SIZE_TRAIN is {cfg.INPUT.SIZE_TRAIN} and INPUT.SIZE_TEST is {cfg.INPUT.SIZE_TEST}. The position "
            "embedding has one size, so the two must be equal."
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
            "The warm-up must end before the training does: lower WARMUP_EPOCHS or raise MAX_EPOCHS."
        )
    if 0 < cfg.SOLVER.LR_NOISE < MIN_NOISE:  # it is drawn until it is that small
        raise UserError(f"SOLVER.LR_NOISE is {cfg.SOLVER.LR_NOISE}. Allowed: 0 (off), or {MIN_NOISE} to below 1.")
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


def _check_batch(cfg: CfgNode) -> None:
    """What a batch is made of, and into how many parts it can be cut."""
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if cfg.DATALOADER.SAMPLER == "softmax_triplet":
        if batch % instances:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch} and DATALOADER.NUM_INSTANCE {instances}, which does not divide it. "
                f"A batch is P identities of NUM_INSTANCE images: take a multiple of {instances}, such as "
                f"{(batch // instances + 1) * instances}."
            )
        if cfg.MODEL.TRIPLET_LOSS_WEIGHT > 0 and (instances < 2 or batch == instances):
            raise UserError(
                f"SOLVER.IMS_PER_BATCH is {batch} and DATALOADER.NUM_INSTANCE {instances}. The triplet loss needs at "
                "least two images per identity and two identities per batch; else set DATALOADER.SAMPLER: softmax."
            )
    if batch < cfg.SOLVER.ACCUMULATE:
        raise UserError(
            f"SOLVER.ACCUMULATE is {cfg.SOLVER.ACCUMULATE}, more parts than the {batch} images of SOLVER.IMS_PER_BATCH."
        )


def _check_places(model: CfgNode) -> None:
    """SDTPS_BLOCK and the two ratios, each one value or a list."""
    blocks = as_list(model.SDTPS_BLOCK)
    if not blocks or blocks != sorted(set(blocks)) or (0 in blocks and len(blocks) > 1):
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}. Allowed: 0 (after the last block), a number of blocks, or an "
            "ascending list of such numbers without 0."
        )
    for key in ("SDTPS_SPARSE_RATIO", "SDTPS_AGGR_RATIO"):
        if len(as_list(model[key], len(blocks))) != len(blocks):
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
