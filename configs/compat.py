"""The original's habits: spellings of values, old key names, and keys it defines and never reads."""

from __future__ import annotations

import ast
import difflib
import sys
import warnings
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

NUM_SHOWN = 80
"""Characters of a value that a message shows."""
MAX_TEXT = 4096
"""Characters of a text; no path is longer."""


def is_off(value: Any) -> bool:
    """Whether a value of the original's says 'off': False, 0, 'no', 'off', 'nothing', 'None', ''."""
    return not value or (isinstance(value, str) and value.lower() in FALSE_WORDS | {"none", "nothing", "0"})


def literal(value: Any) -> Any:
    """A string as the Python value it spells ("5e-6", "('RGBNT201')", "[1, 2]"), or the string itself."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in what is no literal anyway
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last three: "{[]: 1}", "((((..."
        return value


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "a number of too many digits"
    return text if len(text) <= NUM_SHOWN else f"{text[:NUM_SHOWN]}..."


def coerce(key: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`, understanding the original's spellings.

    Raises:
        UserError: the value cannot be one of that type.
    """
    parsed, got = literal(value), shown(value)
    if key in ONE_OR_MORE and isinstance(parsed, (list, tuple)):
        return [coerce(f"{key}[{i}]", item, default) for i, item in enumerate(parsed)]
    if key == "TEST.MISS":  # 'None', 'RT'
        parsed = "nothing" if is_off(parsed) else parsed.lower() if isinstance(parsed, str) else parsed
    if isinstance(default, bool):
        if isinstance(parsed, (bool, int)) and parsed in (0, 1):
            return bool(parsed)
        word = parsed.lower() if isinstance(parsed, str) else ""
        if word in TRUE_WORDS | FALSE_WORDS:
            return word in TRUE_WORDS
        raise UserError(f"{key} is {got}, which is not a switch. Allowed: True or False (also yes/no, on/off, 1/0).")
    number = isinstance(parsed, (int, float)) and not isinstance(parsed, bool) and abs(parsed) < float("inf")
    if isinstance(default, int):
        if number and int(parsed) == parsed and abs(parsed) < 2**63:
            return int(parsed)
        raise UserError(f"{key} is {got}, which is not a whole number. Its default is {default}.")
    if isinstance(default, float):
        if number and abs(parsed) <= sys.float_info.max:
            return float(parsed)
        raise UserError(f"{key} is {got}, which is not a finite number. Its default is {default}.")
    if isinstance(default, list):
        items = list(parsed) if isinstance(parsed, (list, tuple)) else None
        if items is None or len(items) != len(default):
            raise UserError(f"{key} is {got}. Allowed: a list of {len(default)} values, such as {default}.")
        return [coerce(f"{key}[{i}]", item, default[i]) for i, item in enumerate(items)]
    if isinstance(parsed, (list, tuple)) and len(parsed) == 1:  # NAMES: ['RGBNT201']
        parsed = parsed[0]
    too_long = isinstance(value, int) and abs(value) >= 2**63
    if parsed is None or isinstance(parsed, (dict, list, tuple)) or too_long:
        raise UserError(f"{key} is {got}, which is not text. Its default is {default!r}.")
    text = parsed if isinstance(parsed, str) else str(value)
    if len(text) > MAX_TEXT or not text.isprintable():
        raise UserError(
            f"{key} is {got}. Allowed: at most {MAX_TEXT} characters, without line breaks and control codes."
        )
    return text


def unknown_key(key: str, known: list[str]) -> UserError:
    """The error for a key that does not exist, with the nearest ones that do."""
    if len(key) > NUM_SHOWN or not key.isprintable():
        key = shown(key)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "configs/defaults.py lists every key with its meaning."
    return UserError(f"There is no configuration key {key}. {hint}")
