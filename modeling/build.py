"""From configuration to model and loss: the only file of this package that knows the keys."""

from __future__ import annotations

import logging

from yacs.config import CfgNode

from configs.places import Place, sdtps_places
from modeling.backbone.pretrained import load_pretrained
from modeling.backbone.vit import ViTBackbone
from modeling.branches.atmoe import ATMoE
from modeling.branches.hdm import HDM
from modeling.branches.pife import PIFE
from modeling.losses import ReIDLoss
from modeling.model import ReIDModel
from modeling.selection.early import EarlySDTPS
from modeling.selection.sdtps import SDTPS
from utils.errors import UserError

logger = logging.getLogger(__name__)

LABEL_SMOOTHING = 0.1


def build_model(cfg: CfgNode, *, num_classes: int, num_cameras: int, pretrained: bool = True) -> ReIDModel:
    """The model that the configuration describes, on the CPU.

    Args:
        cfg: from `configs.get_cfg`.
        num_classes: identities of the training set.
        num_cameras: cameras of the training set.
        pretrained: load MODEL.PRETRAIN_PATH_T; False where a checkpoint is going to be loaded anyway.

    Raises:
        UserError: an unknown backbone, sizes that do not fit it, or weights that are missing or do not fit.
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
    width = backbone.embed_dim
    return ReIDModel(
        backbone,
        num_classes=num_classes,
        direct=model.DIRECT,
        pife=PIFE(width) if model.GLOBAL_LOCAL else None,
        hdm=HDM(width) if model.HDM else None,
        atmoe=ATMoE(width, num_heads=model.HEAD) if model.ATM else None,
        sdtps=_build_selection(model, backbone) if model.USE_SDTPS else None,
        drop_missing=model.MISSING == "drop",
        feat=cfg.TEST.FEAT,
        neck_feat=cfg.TEST.NECK_FEAT,
        accumulate=cfg.SOLVER.ACCUMULATE,
    )


def _frozen_layers(model: CfgNode, backbone: ViTBackbone) -> int:
    """How many of the backbone's layers (embeddings, blocks, what comes after) are not trained."""
    if backbone.num_blocks < model.FREEZE_BLOCKS:
        raise UserError(
            f"MODEL.FREEZE_BLOCKS is {model.FREEZE_BLOCKS}, but {backbone.name} has {backbone.num_blocks} blocks. "
            "Lower it, or set MODEL.FROZEN: True to train nothing of the backbone."
        )
    if model.FROZEN:
        return backbone.num_blocks + 2
    return model.FREEZE_BLOCKS + 1 if model.FREEZE_BLOCKS else 0


def _build_selection(model: CfgNode, backbone: ViTBackbone) -> SDTPS | EarlySDTPS:
    """SDTPS behind the backbone (MODEL.SDTPS_BLOCK 0), or inside it after one block or several."""
    places = sdtps_places(model)
    early = places[0].block > 0
    if early and backbone.has_rope:
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}, but {backbone.name} rotates its tokens by their place on "
            "the grid in every block, and an aggregated token has none. Set it to 0, or take a backbone with learned "
            "positions."
        )
    if early and places[-1].block >= backbone.num_blocks:
        raise UserError(
            f"MODEL.SDTPS_BLOCK is {model.SDTPS_BLOCK}, but {backbone.name} has {backbone.num_blocks} blocks. "
            f"Allowed: 1 to {backbone.num_blocks - 1}, or 0 for after the last one."
        )
    num_tokens, stages = backbone.num_patches, {}
    width = backbone.width if early else backbone.embed_dim
    for place in places:
        stages[place.block] = _build_sdtps(model, width, num_tokens, place)
        num_tokens = stages[place.block].num_outputs
    return EarlySDTPS(stages) if early else stages[0]


def _build_sdtps(model: CfgNode, width: int, num_patches: int, place: Place) -> SDTPS:
    num_aggregated = place.aggr_ratio * place.sparse_ratio * num_patches
    if num_aggregated < 1:
        raise UserError(
            f"MODEL.SDTPS_AGGR_RATIO is {place.aggr_ratio} and MODEL.SDTPS_SPARSE_RATIO {place.sparse_ratio}: of "
            f"{num_patches} patches {num_aggregated:.2f} would come out of the aggregation. Raise either until at "
            "least one does."
        )
    return SDTPS(
        width,
        num_patches,
        sparse_ratio=place.sparse_ratio,
        aggr_ratio=place.aggr_ratio,
        mask_aggregation=model.SDTPS_MASK_AGGREGATION,
        beta=model.SDTPS_BETA,
        use_gumbel=model.SDTPS_USE_GUMBEL,
        gumbel_tau=model.SDTPS_GUMBEL_TAU,
        gumbel_sample=model.SDTPS_GUMBEL_SAMPLE,
        use_predictor=model.SDTPS_USE_PREDICTOR,
        detach_attention=model.SDTPS_DETACH_ATTENTION,
    )


def build_loss(cfg: CfgNode) -> ReIDLoss:
    """The training loss; without the identity sampler there is no triplet term."""
    model = cfg.MODEL
    return ReIDLoss(
        id_weight=model.ID_LOSS_WEIGHT,
        triplet_weight=model.TRIPLET_LOSS_WEIGHT if cfg.DATALOADER.SAMPLER == "softmax_triplet" else 0.0,
        label_smoothing=LABEL_SMOOTHING if model.IF_LABELSMOOTH else 0.0,
        margin=None if model.NO_MARGIN else cfg.SOLVER.MARGIN,
        head_weights={"sdtps": model.SDTPS_LOSS_WEIGHT},
    )
