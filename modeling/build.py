"""From configuration to model, loss and observers: the only file of this package that reads the configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn
from yacs.config import CfgNode

from modeling.backbone.pretrained import load_pretrained
from modeling.backbone.vit import ViTBackbone
from modeling.branches import BRANCHES, Branch
from modeling.branches.atmoe import ATMoE
from modeling.branches.hdm import HDM
from modeling.branches.pife import PIFE
from modeling.losses import IdentityLoss, ReIDLoss, TripletLoss
from modeling.model import ALL, ReIDModel
from modeling.selection import AGGREGATIONS, SCORES, PatchSelection
from modeling.selection.aggregations import SHRINKING
from modeling.selection.diagnostics import SelectionDiagnostics
from utils.errors import UserError

logger = logging.getLogger(__name__)

LABEL_SMOOTHING = 0.1


def build_model(cfg: CfgNode, *, num_classes: int, num_cameras: int, pretrained: bool = True) -> ReIDModel:
    """Build the model that the configuration describes, on the CPU.

    Args:
        cfg: from `configs.get_cfg`.
        num_classes: identities of the training set.
        num_cameras: cameras of the training set.
        pretrained: load MODEL.PRETRAIN_PATH_T; False where a checkpoint is going to be loaded anyway.

    Raises:
        UserError: the backbone is unknown, sizes do not fit it, or weights are missing or do not fit.
    """
    model = cfg.MODEL
    backbone = ViTBackbone(
        model.TRANSFORMER_TYPE,
        img_size=tuple(cfg.INPUT.SIZE_TRAIN),
        stride=tuple(model.STRIDE_SIZE) if any(model.STRIDE_SIZE) else None,
        num_cameras=num_cameras if model.SIE_CAMERA else 0,
        sie_coe=model.SIE_COE,
        drop_path_rate=model.DROP_PATH,
        grad_checkpointing=model.GRAD_CHECKPOINTING,
    )
    if pretrained and model.PRETRAIN_PATH_T:
        logger.info(load_pretrained(backbone, model.PRETRAIN_PATH_T).summary())
    elif pretrained:
        logger.info("The backbone starts from random weights: MODEL.PRETRAIN_PATH_T is ''.")
    backbone.freeze(_frozen_layers(model, backbone))

    # Weights are drawn in the order of these lines, so a new part goes after those that are there.
    transforms = {"pife": PIFE(backbone.embed_dim)} if model.GLOBAL_LOCAL else {}
    moe = _moe_options(model, backbone.embed_dim)
    stages = _build_stages(model, backbone) if model.USE_SDTPS else {}
    inside = {num_blocks: stage for num_blocks, stage in stages.items() if num_blocks}
    options: dict[str, dict[str, Any]] = {"ori": {"direct": model.DIRECT}}
    if moe:
        options["moe"] = moe
    if model.USE_SDTPS:
        options["sdtps"] = {"selection": stages.get(0)}
    branches: dict[str, Branch] = {
        name: branch(backbone.embed_dim, **options[name]) for name, branch in BRANCHES.items() if name in options
    }
    automatic = "sdtps" if "sdtps" in branches else ALL
    return ReIDModel(
        backbone,
        branches,
        num_classes=num_classes,
        transforms=transforms,
        reducers=inside,
        drop_absent=model.MISSING == "drop",
        descriptor=automatic if cfg.TEST.FEAT == "auto" else cfg.TEST.FEAT,
        after_neck=cfg.TEST.NECK_FEAT == "after",
        accumulate=cfg.SOLVER.ACCUMULATE,
    )


def _moe_options(model: CfgNode, embed_dim: int) -> dict[str, nn.Module | None]:
    """Build the parts of the moe branch; none without MODEL.HDM."""
    if not model.HDM:
        return {}
    return {"hdm": HDM(embed_dim), "atmoe": ATMoE(embed_dim, num_heads=model.HEAD) if model.ATM else None}


def _frozen_layers(model: CfgNode, backbone: ViTBackbone) -> int:
    """Count the layers of the backbone (embeddings, blocks, what comes after) that are not trained."""
    if backbone.num_blocks < model.FREEZE_BLOCKS:
        raise UserError(
            f"MODEL.FREEZE_BLOCKS is {model.FREEZE_BLOCKS}, but {backbone.name} has {backbone.num_blocks} blocks. "
            "Lower it, or set MODEL.FROZEN: True to train nothing of the backbone."
        )
    if model.FROZEN:
        return backbone.num_blocks + 2
    return model.FREEZE_BLOCKS + 1 if model.FREEZE_BLOCKS else 0


@dataclass(frozen=True)
class Stage:
    """One patch selection: keys of SDTPS hold one value, or a list with one for each stage."""

    num_blocks: int
    """Blocks of the backbone before it; 0 stands for all."""
    sparse_ratio: float
    aggr_ratio: float


def read_stages(model: CfgNode) -> list[Stage]:
    """Read the stages of cfg.MODEL, in the order of the blocks."""
    blocks = model.SDTPS_BLOCK if isinstance(model.SDTPS_BLOCK, list) else [model.SDTPS_BLOCK]
    ratios = (
        value if isinstance(value, list) else [value] * len(blocks)
        for value in (model.SDTPS_SPARSE_RATIO, model.SDTPS_AGGR_RATIO)
    )
    return [Stage(*values) for values in zip(blocks, *ratios, strict=True)]


def _build_stages(model: CfgNode, backbone: ViTBackbone) -> dict[int, PatchSelection]:
    """Build the patch selections by the number of blocks before each; 0 is the one behind the backbone."""
    stages = read_stages(model)
    inside = stages[0].num_blocks > 0
    if inside and backbone.has_rope:
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}, but {backbone.name} rotates its tokens by their place on "
            "the grid in every block, and an aggregated token has none. Set it to 0, or take a backbone with learned "
            "positions."
        )
    if inside and stages[-1].num_blocks >= backbone.num_blocks:
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}, but {backbone.name} has {backbone.num_blocks} blocks. "
            f"Allowed: 1 to {backbone.num_blocks - 1}, or 0 for after the last one."
        )
    score, aggregation = SCORES[model.SDTPS_SCORE], AGGREGATIONS[model.SDTPS_AGGREGATION]
    if len(stages) > 1 and "grid" in score.needs:
        raise UserError(
            f"MODEL.SDTPS_SCORE is {model.SDTPS_SCORE!r}, which scores places in the image, but MODEL.SDTPS_BLOCK is "
            f"{model.SDTPS_BLOCK}: only the first stage sees patches in their places. Give one block, or set "
            "MODEL.SDTPS_SCORE: sdtps."
        )
    backbone.check_records(score.records, f"MODEL.SDTPS_SCORE is {model.SDTPS_SCORE!r}, which")
    backbone.check_records(aggregation.records, f"MODEL.SDTPS_AGGREGATION is {model.SDTPS_AGGREGATION!r}, which")
    built: dict[int, PatchSelection] = {}
    num_patches, grid = backbone.num_patches, backbone.grid
    for stage in stages:
        selection = _build_stage(model, backbone.width if inside else backbone.embed_dim, num_patches, grid, stage)
        built[stage.num_blocks] = selection
        num_patches, grid = selection.num_outputs, None
    return built


def _build_stage(
    model: CfgNode, embed_dim: int, num_patches: int, grid: tuple[int, int] | None, stage: Stage
) -> PatchSelection:
    share = stage.aggr_ratio * stage.sparse_ratio * num_patches
    if share < 1 and model.SDTPS_AGGREGATION in SHRINKING:
        raise UserError(
            f"MODEL.SDTPS_AGGR_RATIO is {stage.aggr_ratio} and MODEL.SDTPS_SPARSE_RATIO {stage.sparse_ratio}: of "
            f"{num_patches} patches {share:.2f} would come out of the aggregation. Raise either until at least one "
            "does."
        )
    return PatchSelection(
        embed_dim,
        num_patches,
        grid=grid,
        score=model.SDTPS_SCORE,
        aggregation=model.SDTPS_AGGREGATION,
        sparse_ratio=stage.sparse_ratio,
        aggr_ratio=stage.aggr_ratio,
        extra_token=model.SDTPS_EXTRA_TOKEN,
        gate=model.SDTPS_GATE,
        anneal_epochs=model.SDTPS_ANNEAL_EPOCHS,
        beta=model.SDTPS_BETA,
        use_predictor=model.SDTPS_USE_PREDICTOR,
        detach_attention=model.SDTPS_DETACH_ATTENTION,
        use_gumbel=model.SDTPS_USE_GUMBEL,
        gumbel_tau=model.SDTPS_GUMBEL_TAU,
        gumbel_sample=model.SDTPS_GUMBEL_SAMPLE,
        mask_aggregation=model.SDTPS_MASK_AGGREGATION,
    )


def build_loss(cfg: CfgNode) -> ReIDLoss:
    """Build the training loss; without the identity sampler there is no triplet term."""
    model = cfg.MODEL
    terms = {}
    if model.ID_LOSS_WEIGHT:
        smoothing = LABEL_SMOOTHING if model.IF_LABELSMOOTH else 0.0
        terms["id"] = (model.ID_LOSS_WEIGHT, IdentityLoss(label_smoothing=smoothing))
    if model.TRIPLET_LOSS_WEIGHT and cfg.DATALOADER.SAMPLER == "softmax_triplet":
        margin = None if model.NO_MARGIN else cfg.SOLVER.MARGIN
        terms["triplet"] = (model.TRIPLET_LOSS_WEIGHT, TripletLoss(margin=margin))
    return ReIDLoss(terms, head_weights={"sdtps": model.SDTPS_LOSS_WEIGHT})


def build_observers(cfg: CfgNode, model: ReIDModel) -> list[SelectionDiagnostics]:
    """Build what watches the training of `model` (see `engine.observers`): its first patch selection, if it has one."""
    return [SelectionDiagnostics(selection, period=cfg.SOLVER.LOG_PERIOD) for selection in model.selections[:1]]
