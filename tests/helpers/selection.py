"""Make a patch selection by itself, with the defaults of the configuration."""

import inspect
from functools import partial

from configs import get_cfg
from modeling.selection import PatchSelection


def make_selection(embed_dim, num_patches, **options):
    """Make a selection with `options`; what they do not name has the default of the key MODEL.SDTPS_<NAME>."""
    defaults, names = get_cfg().MODEL, inspect.signature(PatchSelection).parameters
    settings = {name: defaults[f"SDTPS_{name.upper()}"] for name in names if f"SDTPS_{name.upper()}" in defaults}
    return PatchSelection(embed_dim, num_patches, **{"grid": None, **settings, **options})


make_sdtps = partial(make_selection, score="sdtps", aggregation="learned")
