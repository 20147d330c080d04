"""Make a patch selection by itself, with the defaults of the configuration."""

import inspect

from configs import get_cfg
from modeling.selection import SDTPS, PatchSelection


def make_sdtps(embed_dim, num_patches, **options):
    """Make SDTPS with `options`; what they do not name has the default of the key MODEL.SDTPS_<NAME>."""
    defaults, names = get_cfg().MODEL, inspect.signature(PatchSelection).parameters
    settings = {name: defaults[f"SDTPS_{name.upper()}"] for name in names if f"SDTPS_{name.upper()}" in defaults}
    return SDTPS(embed_dim, num_patches, **{"grid": None, **settings, **options})
