"""Rules that tie several keys to each other, and the check of a whole configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from configs.keys import KEYS
from configs.schema import Settings, as_list, make_node
from modeling.branches import BRANCHES

Result = TypeVar("Result")

MIN_NOISE = 0.001
"""The least SOLVER.LR_NOISE other than 0. Larger draws are rejected, and below this nearly every draw would be."""
SWITCHES = {name: branch.switch for name, branch in BRANCHES.items() if branch.switch}
"""The key that adds a branch, by the name of the branch."""
TRAINED_PARTS = ("MODEL.SIE_CAMERA", "MODEL.GLOBAL_LOCAL", *SWITCHES.values())
"""What can be trained beside a frozen backbone."""


@dataclass(frozen=True)
class Rule:
    """A condition on several keys that is an error."""

    finds: Callable[[Settings], Any]
    """It returns something true if the rule is broken."""
    message: str
    """It shows a value by {SECTION.KEY}, and what was found by {found}."""


def check(given: Settings) -> tuple[list[str], list[str]]:
    """Return the problems of a configuration, and what only deserves a warning.

    Conditions that read a key which is absent, because its value has been refused already, are left out.
    """
    problems, notices = [], []
    for name, key in KEYS.items():
        need = _apply(key.unmet, given) if given.get(name, key.default) != key.default else None
        if need is not None:
            (notices if need.warn else problems).append(
                f"{name} is {given[name]!r}, but it would have no effect: {need.because}. Either {need.remedy}, or "
                f"leave {name} at its default, {key.default!r}."
            )
    for rule in RULES:
        if found := _apply(rule.finds, given):
            problems.append(rule.message.format(found=found, **make_node(given)))
    return problems, notices


def _apply(condition: Callable[[Settings], Result], given: Settings) -> Result | None:
    try:
        return condition(given)
    except KeyError as error:
        if error.args[0] in KEYS:
            return None
        raise


def _no_order(blocks: list[int]) -> bool:
    return blocks != sorted(set(blocks)) or (0 in blocks and len(blocks) > 1)


def _no_triplet_loss(given: Settings) -> bool:
    return given["DATALOADER.SAMPLER"] == "softmax" or given["MODEL.TRIPLET_LOSS_WEIGHT"] == 0


def _next_multiple(given: Settings) -> int | None:
    """Return the next batch size that NUM_INSTANCE divides, if it does not divide the given one."""
    batch, instances = given["SOLVER.IMS_PER_BATCH"], given["DATALOADER.NUM_INSTANCE"]
    broken = given["DATALOADER.SAMPLER"] == "softmax_triplet" and batch % instances
    return (batch // instances + 1) * instances if broken else None


def _absent_branch(given: Settings) -> str | None:
    switch = SWITCHES.get(given["TEST.FEAT"])
    return switch if switch and not given[switch] else None


RULES = (
    Rule(
        lambda given: _no_order(as_list(given["MODEL.SDTPS_BLOCK"])),
        "MODEL.SDTPS_BLOCK is {MODEL.SDTPS_BLOCK}. Allowed: 0 (after the last block), a number of blocks, or an "
        "ascending list of such numbers without 0.",
    ),
    *(
        Rule(
            lambda given, key=key: (
                isinstance(given[key], list) and len(given[key]) != len(as_list(given["MODEL.SDTPS_BLOCK"]))
            ),
            f"{key} is {{{key}}} and MODEL.SDTPS_BLOCK {{MODEL.SDTPS_BLOCK}}. Give one ratio, or a list with one for "
            "each stage.",
        )
        for key in ("MODEL.SDTPS_SPARSE_RATIO", "MODEL.SDTPS_AGGR_RATIO")
    ),
    Rule(
        lambda given: given["INPUT.SIZE_TRAIN"] != given["INPUT.SIZE_TEST"],
        "INPUT.SIZE_TRAIN is {INPUT.SIZE_TRAIN} and INPUT.SIZE_TEST is {INPUT.SIZE_TEST}. The position embedding has "
        "one size, so the two must be equal.",
    ),
    Rule(
        lambda given: given["MODEL.ID_LOSS_WEIGHT"] == 0 and _no_triplet_loss(given),
        "MODEL.ID_LOSS_WEIGHT is 0 and there is no triplet loss either: nothing would be trained.",
    ),
    Rule(
        lambda given: (
            given["MODEL.FROZEN"]
            and given["MODEL.ID_LOSS_WEIGHT"] == 0
            and not any([given[part] for part in TRAINED_PARTS])
        ),
        "MODEL.FROZEN is True and MODEL.ID_LOSS_WEIGHT is 0: the triplet loss is on features of the backbone alone, so "
        "that nothing would be trained. Raise MODEL.ID_LOSS_WEIGHT or set MODEL.FROZEN: False.",
    ),
    Rule(
        lambda given: given["SOLVER.WARMUP_EPOCHS"] >= given["SOLVER.MAX_EPOCHS"],
        "SOLVER.WARMUP_EPOCHS is {SOLVER.WARMUP_EPOCHS} of SOLVER.MAX_EPOCHS {SOLVER.MAX_EPOCHS}. The warm-up must end "
        "before the training does: lower WARMUP_EPOCHS or raise MAX_EPOCHS.",
    ),
    Rule(
        lambda given: given["MODEL.SDTPS_ANNEAL_EPOCHS"] >= given["SOLVER.MAX_EPOCHS"],
        "MODEL.SDTPS_ANNEAL_EPOCHS is {MODEL.SDTPS_ANNEAL_EPOCHS} of SOLVER.MAX_EPOCHS {SOLVER.MAX_EPOCHS}. The share "
        "of kept patches must reach MODEL.SDTPS_SPARSE_RATIO before the training ends: lower SDTPS_ANNEAL_EPOCHS or "
        "raise MAX_EPOCHS.",
    ),
    Rule(
        lambda given: 0 < given["SOLVER.LR_NOISE"] < MIN_NOISE,
        f"SOLVER.LR_NOISE is {{SOLVER.LR_NOISE}}. Allowed: 0 (off), or {MIN_NOISE} to below 1.",
    ),
    Rule(_absent_branch, "TEST.FEAT is {TEST.FEAT!r}, but {found} is False. Set it True, or TEST.FEAT: auto."),
    Rule(
        lambda given: any(given["MODEL.STRIDE_SIZE"]) and not all(given["MODEL.STRIDE_SIZE"]),
        "MODEL.STRIDE_SIZE is {MODEL.STRIDE_SIZE}. Allowed: two numbers of pixels from 1, or [0, 0] for the size of "
        "the patch.",
    ),
    Rule(  # torch takes cuda:300 for cuda:44
        lambda given: not re.fullmatch("auto|cpu|cuda(:[0-9]{1,2})?", given["MODEL.DEVICE"]),
        "MODEL.DEVICE is {MODEL.DEVICE!r}. Allowed: 'auto', 'cpu', 'cuda', 'cuda:N'.",
    ),
    Rule(
        lambda given: not given["OUTPUT_DIR"],
        "OUTPUT_DIR is empty. Set it to the folder that the run writes to.",
    ),
    Rule(
        _next_multiple,
        "SOLVER.IMS_PER_BATCH is {SOLVER.IMS_PER_BATCH} and DATALOADER.NUM_INSTANCE {DATALOADER.NUM_INSTANCE}, which "
        "does not divide it. A batch is P identities of NUM_INSTANCE images: take a multiple of "
        "{DATALOADER.NUM_INSTANCE}, such as {found}.",
    ),
    Rule(
        lambda given: (
            not _no_triplet_loss(given)
            and (
                given["DATALOADER.NUM_INSTANCE"] < 2
                or given["DATALOADER.NUM_INSTANCE"] == given["SOLVER.IMS_PER_BATCH"]
            )
        ),
        "SOLVER.IMS_PER_BATCH is {SOLVER.IMS_PER_BATCH} and DATALOADER.NUM_INSTANCE {DATALOADER.NUM_INSTANCE}. The "
        "triplet loss needs at least two images per identity and two identities per batch; else set "
        "DATALOADER.SAMPLER: softmax.",
    ),
    Rule(
        lambda given: given["SOLVER.IMS_PER_BATCH"] < given["SOLVER.ACCUMULATE"],
        "SOLVER.ACCUMULATE is {SOLVER.ACCUMULATE}, more parts than the {SOLVER.IMS_PER_BATCH} images of "
        "SOLVER.IMS_PER_BATCH.",
    ),
)
