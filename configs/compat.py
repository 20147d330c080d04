"""The original's habits: spellings of values, old key names, and keys it defines and never reads."""

from __future__ import annotations

import ast
import difflib
from typing import Any

from utils.errors import UserError

ONE_OR_MORE = {"MODEL.SDTPS_BLOCK", "MODEL.SDTPS_SPARSE_RATIO", "MODEL.SDTPS_AGGR_RATIO"}
"""Keys that take a value, or a list of such values of any length."""

TRUE_WORDS = {"yes", "on", "true"}
FALSE_WORDS = {"no", "off", "false"}

RENAMED = {"SOLVER.WARMUP_ITERS": "SOLVER.WARMUP_EPOCHS"}
"""Old name -> ours, same meaning (the original's WARMUP_ITERS counts epochs)."""

NEVER_READ = {
    "MODEL.DEVICE_ID": "use CUDA_VISIBLE_DEVICES or MODEL.DEVICE: cuda:N",
    "MODEL.NAME": "",
    "MODEL.LAST_STRIDE": "",
    "MODEL.NECK": "every head has a BNNeck",
    "MODEL.COS_LAYER": "",
    "MODEL.FORWARD": "",
    "MODEL.PRETRAIN_CHOICE": "MODEL.PRETRAIN_PATH_T alone decides",
    "MODEL.METRIC_LOSS_TYPE": "the metric loss is the batch-hard triplet",
    "MODEL.ID_LOSS_TYPE": "the identity loss is cross-entropy",
    "MODEL.DIST_TRAIN": "",
    "MODEL.ATT_DROP_RATE": "",
    "MODEL.DROP_OUT": "",
    "MODEL.SIE_VIEW": "",
    "SOLVER.STEPS": "the schedule is warm-up and cosine",
    "SOLVER.GAMMA": "the schedule is warm-up and cosine",
    "SOLVER.WARMUP_FACTOR": "use SOLVER.WARMUP_START",
    "SOLVER.WARMUP_METHOD": "the warm-up is linear",
    "SOLVER.COSINE_MARGIN": "",
    "SOLVER.COSINE_SCALE": "",
    "SOLVER.CENTER_LR": "",
    "SOLVER.CENTER_LOSS_WEIGHT": "",
    "SOLVER.CLUSTER_MARGIN": "",
    "SOLVER.RANGE_K": "",
    "SOLVER.RANGE_MARGIN": "",
    "SOLVER.RANGE_ALPHA": "",
    "SOLVER.RANGE_BETA": "",
    "SOLVER.RANGE_AL": "",
    "TEST.DIST_MAT": "",
    "TEST.EVAL": "",
}
"""Keys of the original that change nothing there; accepted with a warning. The text is the remedy, if any."""

ONLY_OFF = {
    "MODEL.IF_WITH_CENTER": "the center loss",
    "MODEL.PROMPT": "prompt tuning",
    "MODEL.ADAPTER": "adapters",
}
"""Switches of the original that are understood while off and refused when on."""


def is_off(value: Any) -> bool:
    """Whether a value of the original's says 'off': False, 0, 'no', 'off', 'nothing', 'None', ''."""
    return not value or str(value).lower() in FALSE_WORDS | {"none", "nothing", "0"}


def literal(value: Any) -> Any:
    """A string as the Python value it spells ("5e-6", "('RGBNT201')", "[1, 2]"), or the string itself."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def coerce(key: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`, understanding the original's spellings.

    Raises:
        UserError: the value cannot be one of that type.
    """
    parsed = literal(value)
    if key in ONE_OR_MORE and isinstance(parsed, (list, tuple)):
        return [coerce(f"{key}[{i}]", item, default) for i, item in enumerate(parsed)]
    if key == "TEST.MISS":
        return "nothing" if is_off(parsed) else str(parsed).lower()
    if isinstance(default, bool):
        if isinstance(parsed, (bool, int)) and parsed in (0, 1):
            return bool(parsed)
        word = str(parsed).lower()
        if word in TRUE_WORDS | FALSE_WORDS:
            return word in TRUE_WORDS
        raise UserError(
            f"{key} is {value!r}, which is not a switch. Allowed: True or False (also yes/no, on/off, 1/0)."
        )
    number = isinstance(parsed, (int, float)) and not isinstance(parsed, bool)
    if isinstance(default, int):
        if number and parsed == parsed and abs(parsed) != float("inf") and int(parsed) == parsed:
            return int(parsed)
        raise UserError(f"{key} is {value!r}, which is not a whole number. Its default is {default}.")
    if isinstance(default, float):
        if number and abs(parsed) < float("inf"):
            return float(parsed)
        raise UserError(f"{key} is {value!r}, which is not a finite number. Its default is {default}.")
    if isinstance(default, list):
        items = list(parsed) if isinstance(parsed, (list, tuple)) else None
        if items is None or len(items) != len(default):
            raise UserError(f"{key} is {value!r}. Allowed: a list of {len(default)} values, such as {default}.")
        return [coerce(f"{key}[{i}]", item, default[i]) for i, item in enumerate(items)]
    if isinstance(parsed, (list, tuple)) and len(parsed) == 1:  # NAMES: ['RGBNT201']
        parsed = parsed[0]
    if parsed is None or isinstance(parsed, (dict, list, tuple)):
        raise UserError(f"{key} is {value!r}, which is not text. Its default is {default!r}.")
    return parsed if isinstance(parsed, str) else str(value)


def unknown_key(key: str, known: list[str]) -> UserError:
    """The error for a key that does not exist, with the nearest ones that do."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "configs/defaults.py lists every key with its meaning."
    return UserError(f"There is no configuration key {key}. {hint}")
