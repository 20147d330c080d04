"""Keys that could change nothing beside other keys: when, why, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yacs.config import CfgNode

from configs.places import sdtps_places


@dataclass(frozen=True)
class Inert:
    """Keys that could change nothing under a condition: setting one away from its default is then refused."""

    keys: str
    """One key, or a prefix ending in *."""
    when: Callable[[CfgNode], bool]
    because: str
    remedy: str
    warn: bool = False
    """Only warn: the original's own YAMLs carry the key where it does nothing, or a variant meets a longer YAML."""

    def names(self, key: str) -> bool:
        """Whether the rule is about `key`."""
        return key == self.keys or (self.keys.endswith("*") and key.startswith(self.keys[:-1]))


def _score_unused(model: CfgNode) -> bool:
    """With every patch kept and no Gumbel gradient, nothing reads the score."""
    return model.USE_SDTPS and _keeps_all(model) and not model.SDTPS_USE_GUMBEL


def _keeps_all(model: CfgNode) -> bool:
    return all(place.sparse_ratio == 1 for place in sdtps_places(model))


def _score_learns(model: CfgNode) -> bool:
    """Whether a gradient of the score arrives at a parameter: the predictor's, or through the attention another's."""
    of_predictor = model.SDTPS_USE_PREDICTOR and model.SDTPS_BETA < 0.5
    of_attention = not (model.SDTPS_DETACH_ATTENTION or (model.SDTPS_USE_PREDICTOR and model.SDTPS_BETA == 0))
    return _branch_trained(model) and (of_predictor or (of_attention and _tokens_learn(model)))


def _branch_trained(model: CfgNode) -> bool:
    """Whether a loss depends on what SDTPS selects: its own, or inside the backbone every one."""
    return model.SDTPS_LOSS_WEIGHT > 0 or sdtps_places(model)[0].block > 0


def _tokens_learn(model: CfgNode) -> bool:
    """Whether a gradient of the tokens that SDTPS scores arrives at a parameter in front of it."""
    first, *others = sdtps_places(model)
    if model.SIE_CAMERA or others:  # the first place makes the tokens of the second
        return True
    if first.block == 0:
        return model.GLOBAL_LOCAL or not model.FROZEN
    return not model.FROZEN and first.block > model.FREEZE_BLOCKS


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
    *(
        Inert(
            key,
            lambda c: c.MODEL.FROZEN,
            "MODEL.FROZEN is True, and only the camera embedding, if any, learns, at BASE_LR",
            "set MODEL.FROZEN: False",
        )
        for key in ("SOLVER.BACKBONE_LR", "SOLVER.LAYER_DECAY")
    ),
    *(
        Inert(
            key,
            lambda c: not (c.MODEL.USE_SDTPS or c.MODEL.HDM or c.MODEL.GLOBAL_LOCAL),
            "neck and classifier learn no bias, so that there is none outside the backbone",
            "set MODEL.USE_SDTPS, MODEL.HDM or MODEL.GLOBAL_LOCAL: True",
            warn=True,
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
        warn=True,
    ),
    Inert(
        "DATALOADER.CACHE_DIR",
        lambda c: c.DATALOADER.CACHE == "off",
        "DATALOADER.CACHE is 'off'",
        "set DATALOADER.CACHE: auto",
        warn=True,
    ),
)
