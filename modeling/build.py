"""From configuration to model and loss: the only file of this package that knows the keys."""

from __future__ import annotations

import logging

from yacs.config import CfgNode

from modeling.backbone import ViTBackbone
from modeling.losses import ReIDLoss
from modeling.model import ReIDModel
from modeling.pretrained import load_pretrained
from modeling.sdtps import SDTPS
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
    return ReIDModel(
        backbone,
        num_classes=num_classes,
        direct=model.DIRECT,
        sdtps=_build_sdtps(model, backbone) if model.USE_SDTPS else None,
        feat=cfg.TEST.FEAT,
        neck_feat=cfg.TEST.NECK_FEAT,
        accumulate=cfg.SOLVER.ACCUMULATE,
    )


def _build_sdtps(model: CfgNode, backbone: ViTBackbone) -> SDTPS:
    tokens = model.SDTPS_AGGR_RATIO * model.SDTPS_SPARSE_RATIO * backbone.num_patches
    if tokens < 1:
        raise UserError(
            f"MODEL.SDTPS_AGGR_RATIO is {model.SDTPS_AGGR_RATIO} and MODEL.SDTPS_SPARSE_RATIO "
            f"{model.SDTPS_SPARSE_RATIO}: "
            f"of {backbone.num_patches} patches {tokens:.2f} would come out of the aggregation. Raise either until at "
            "least one does."
        )
    return SDTPS(
        backbone.embed_dim,
        backbone.num_patches,
        sparse_ratio=model.SDTPS_SPARSE_RATIO,
        aggr_ratio=model.SDTPS_AGGR_RATIO,
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
