"""What DeMo's YAMLs contain is understood: its spellings, its key names, and the keys that it never reads."""

from __future__ import annotations

import ast
import difflib
import sys
import warnings
from collections.abc import Collection
from typing import Any

from utils.errors import UserError

TRUE_WORDS = {"yes", "on", "true"}
FALSE_WORDS = {"no", "off", "false"}

RENAMED = {"SOLVER.WARMUP_ITERS": "SOLVER.WARMUP_EPOCHS"}
"""DeMo's name to ours; the meaning is the same (its WARMUP_ITERS counts epochs)."""

NEVER_READ = dict.fromkeys(
    (
        *("MODEL.NAME", "MODEL.LAST_STRIDE", "MODEL.COS_LAYER", "MODEL.FORWARD", "MODEL.DIST_TRAIN"),
        *("MODEL.ATT_DROP_RATE", "MODEL.DROP_OUT", "MODEL.SIE_VIEW", "SOLVER.COSINE_MARGIN", "SOLVER.COSINE_SCALE"),
        *("SOLVER.CENTER_LR", "SOLVER.CENTER_LOSS_WEIGHT", "SOLVER.CLUSTER_MARGIN", "SOLVER.RANGE_K"),
        *("SOLVER.RANGE_MARGIN", "SOLVER.RANGE_ALPHA", "SOLVER.RANGE_BETA", "SOLVER.RANGE_AL", "TEST.DIST_MAT"),
        "TEST.EVAL",
    ),
    "",
) | {
    "MODEL.DEVICE_ID": "use CUDA_VISIBLE_DEVICES or MODEL.DEVICE: cuda:N",
    "MODEL.NECK": "every head has a BNNeck",
    "MODEL.PRETRAIN_CHOICE": "MODEL.PRETRAIN_PATH_T alone decides",
    "MODEL.METRIC_LOSS_TYPE": "the metric loss is the batch-hard triplet loss",
    "MODEL.ID_LOSS_TYPE": "the identity loss is cross-entropy",
    "SOLVER.STEPS": "the schedule is a warm-up and a cosine",
    "SOLVER.GAMMA": "the schedule is a warm-up and a cosine",
    "SOLVER.WARMUP_FACTOR": "use SOLVER.WARMUP_START",
    "SOLVER.WARMUP_METHOD": "the warm-up is linear",
}
"""Keys that change nothing in DeMo; they are accepted with a warning that gives this remedy, if there is one."""

ONLY_OFF = {
    "MODEL.IF_WITH_CENTER": "the center loss",
    "MODEL.PROMPT": "prompt tuning",
    "MODEL.ADAPTER": "adapters",
}
"""Switches of DeMo that are accepted while they are off."""

NUM_SHOWN = 80
"""The number of characters of a value that a message shows."""
MAX_TEXT = 4096
"""The largest number of characters of a text; no path is longer."""


def is_off(value: Any) -> bool:
    """Return whether a value means 'off' in DeMo: False, 0, 'no', 'off', 'nothing', 'None', ''."""
    return not value or (isinstance(value, str) and value.lower() in FALSE_WORDS | {"none", "nothing", "0"})


def literal(value: Any) -> Any:
    """Parse a string that spells a Python value ("5e-6", "('RGBNT201')", "[1, 2]"); return others as they are."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about odd escapes even if the text is no literal
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last three: "{[]: 1}", "((((..."
        return value


def shown(value: Any) -> str:
    """Write out a value for a message: on one line, and cut off if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write out a number of more than 4300 digits
        return "a number with too many digits"
    return text if len(text) <= NUM_SHOWN else f"{text[:NUM_SHOWN]}..."


def coerce(name: str, value: Any, default: Any, *, per_stage: bool = False) -> Any:
    """Convert `value`, which may have one of DeMo's spellings, to the type of `default`.

    With `per_stage` a list becomes a list of such values.

    Raises:
        UserError: the value cannot be converted.
    """
    parsed, got = literal(value), shown(value)
    if per_stage and isinstance(parsed, (list, tuple)):
        return [coerce(f"{name}[{i}]", item, default) for i, item in enumerate(parsed)]
    if name == "TEST.MISS" and is_off(parsed):
        parsed = "nothing"
    if isinstance(default, bool):
        if isinstance(parsed, (bool, int)) and parsed in (0, 1):
            return bool(parsed)
        word = parsed.lower() if isinstance(parsed, str) else ""
        if word in TRUE_WORDS | FALSE_WORDS:
            return word in TRUE_WORDS
        raise UserError(f"{name} is {got}, which is not a switch. Allowed: True or False (also yes/no, on/off, 1/0).")
    number = isinstance(parsed, (int, float)) and not isinstance(parsed, bool) and abs(parsed) < float("inf")
    if isinstance(default, int):
        if number and int(parsed) == parsed and abs(parsed) < 2**63:
            return int(parsed)
        raise UserError(f"{name} is {got}, which is not a whole number. Its default is {default}.")
    if isinstance(default, float):
        if number and abs(parsed) <= sys.float_info.max:
            return float(parsed)
        raise UserError(f"{name} is {got}, which is not a finite number. Its default is {default}.")
    if isinstance(default, list):
        items = list(parsed) if isinstance(parsed, (list, tuple)) else None
        if items is None or len(items) != len(default):
            raise UserError(f"{name} is {got}. Allowed: a list of {len(default)} values, such as {default}.")
        return [coerce(f"{name}[{i}]", item, default[i]) for i, item in enumerate(items)]
    if isinstance(parsed, (list, tuple)) and len(parsed) == 1:  # NAMES: ['RGBNT201']
        parsed = parsed[0]
    too_long = isinstance(value, int) and abs(value) >= 2**63
    if parsed is None or isinstance(parsed, (dict, list, tuple)) or too_long:
        raise UserError(f"{name} is {got}, which is not text. Its default is {default!r}.")
    text = parsed if isinstance(parsed, str) else str(value)
    if len(text) > MAX_TEXT or not text.isprintable():
        raise UserError(
            f"{name} is {got}. Allowed: at most {MAX_TEXT} characters, without line breaks and control codes."
        )
    return text


def read_foreign(name: str, value: Any, known: Collection[str]) -> str | None:
    """Return a warning about a key that is not among the `known` ones, or None for a switch of DeMo that is off.

    Raises:
        UserError: DeMo does not have the key either, or it is a switch that is on.
    """
    if name in NEVER_READ:
        remedy = f"; {NEVER_READ[name]}" if NEVER_READ[name] else ""
        return f"{name} has no effect, in the original code as here{remedy}."
    if name not in ONLY_OFF:
        raise _unknown_key(name, value, known)
    if not is_off(value):
        raise UserError(
            f"{name} is {shown(value)}, but {ONLY_OFF[name]} is not part of this framework. Remove the key."
        )
    return None


def _unknown_key(name: str, value: Any, known: Collection[str]) -> UserError:
    if any(key.startswith(f"{name}.") for key in known):
        return UserError(
            f"There is no configuration key {name}: {name} is a section and holds keys, but is {shown(value)}."
        )
    name = name if len(name) <= NUM_SHOWN and name.isprintable() else shown(name)
    near = difflib.get_close_matches(name, [*known, *RENAMED], n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "docs/configuration.md lists every key with its meaning."
    return UserError(f"There is no configuration key {name}. {hint}")
