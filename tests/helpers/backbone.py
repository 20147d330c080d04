"""Make a backbone by itself."""

from modeling.backbone.vit import ViTBackbone


def make_backbone(name, *, img_size, **options):
    """Make a plain backbone with random weights; `options` switch on the rest."""
    plain = {"stride": None, "num_cameras": 0, "sie_coe": 1.0, "drop_path_rate": 0.0, "grad_checkpointing": False}
    return ViTBackbone(name, img_size=img_size, **{**plain, **options})
