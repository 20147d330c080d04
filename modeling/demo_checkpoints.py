"""Checkpoints of the original DeMo code and of its SDTPS adaptation, as checkpoints of this framework.

Such a file is recognised by its keys (`BACKBONE.base.*`) and checked strictly: it provides every tensor of the model,
and each of its own tensors is used or is on the short list of those that are ignored. A position embedding of another
size is refused, not resized as a pretrained one is, because the features would not be those that were trained. A file
cannot tell whether height and width are exchanged, nor what MODEL.SIE_COE, SDTPS_BETA and the like were: the user has
to know these.

Shapes: F features, W width, D width of an expert.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from data.sample import MODALITIES
from modeling.backbone.pretrained import LoadReport, misfits, rename_tower
from modeling.branches.hdm import SUBSETS
from utils.errors import UserError

logger = logging.getLogger(__name__)

TOWER = "BACKBONE.base."
CAMERAS = ("BACKBONE.cv_embed", "BACKBONE.sie_embed", "BACKBONE.base.sie_embed")
"""Names of the camera embedding, (cameras, 1, W) or (cameras, W)."""
FUSION = "generalFusion."
SELECTION = "branches.sdtps.selection."
SHORT = dict(zip(MODALITIES, ("r", "n", "t"), strict=True))
LONG = dict(zip(MODALITIES, ("rgb", "nir", "tir"), strict=True))

SUFFIXES = {
    "ori": "",
    **{f"ori_{name}": f"_{letter}" for name, letter in SHORT.items()},
    "moe": "_moe",
    "sdtps": "_sdtps",
}
"""Suffix of the neck and the classifier of each of our heads."""

# Our module -> their module; what follows the name is the same in both. The backbone's are in `backbone.pretrained`.
MODULES: dict[str, str] = {
    **{f"heads.{head}.neck": f"bottleneck{suffix}" for head, suffix in SUFFIXES.items()},
    **{f"heads.{head}.classifier": f"classifier{suffix}" for head, suffix in SUFFIXES.items()},
    **{f"transforms.pife.reduce.{modality}": f"{name}_reduce" for modality, name in LONG.items()},
    **{f"branches.moe.hdm.attention.{subset}": f"{FUSION}{subset.lower()}" for subset in SUBSETS},
    "branches.moe.atmoe.gate.reduce": f"{FUSION}moe.gating_network.gate.linear_re",
    "branches.moe.atmoe.gate.q": f"{FUSION}moe.gating_network.gate.q_",
    "branches.moe.atmoe.gate.k": f"{FUSION}moe.gating_network.gate.k_",
    **{
        f"{SELECTION}score.predictor.{modality}": f"sdtps.{name}_sparse.score_predictor"
        for modality, name in LONG.items()
    },
    **{f"{SELECTION}aggregation.{modality}.mlp": f"sdtps.{name}_aggr.weight" for modality, name in LONG.items()},
    **{f"{SELECTION}aggregation.{modality}.scale": f"sdtps.{name}_aggr.scale" for modality, name in LONG.items()},
}
# The tensors that we stack -> their names of the parts, in subset s or in head h and feature f.
QUERIES = f"{FUSION}{{s}}_token"
EXPERTS = {
    "branches.moe.atmoe.experts.norm": f"{FUSION}moe.experts.{{h}}.expertHead.{{f}}.mlp.2",
    "branches.moe.atmoe.experts": f"{FUSION}moe.experts.{{h}}.expertHead.{{f}}.mlp.0",
}

# A branch's module, its marker keys, and its head; where the file lacks either, the other was never used.
BRANCHES: tuple[tuple[str, str, str], ...] = (
    (r"generalFusion\..*", r"generalFusion\.\w+_token", r"(bottleneck|classifier)_moe\..*"),
    (r"sdtps\..*", r"sdtps\..*", r"(bottleneck|classifier)_sdtps\..*"),
)
# Key of the configuration, what a file or a model has when it is on, and the values for on and off.
SWITCHES: tuple[tuple[str, str, str, str], ...] = (
    ("MODEL.SIE_CAMERA", r"backbone\.sie_embed", "True", "False"),
    ("MODEL.GLOBAL_LOCAL", r"\w+_reduce\..*", "True", "False"),
    ("MODEL.DIRECT", r"(bottleneck|classifier)\..*", "True", "False"),
    ("MODEL.HDM", r"generalFusion\.\w+_token", "True", "False"),
    ("MODEL.ATM", r"generalFusion\.moe\..*", "True", "False"),
    ("MODEL.USE_SDTPS", r"(bottleneck|classifier)_sdtps\..*", "True", "False"),
    ("MODEL.SDTPS_BLOCK", r"reducers\..*", "", "0"),
)
# Where the switches agree: which keys decide over a tensor. The first matching row names the key to change.
DECIDED_BY: tuple[tuple[str, str], ...] = (
    (r"backbone\.(?!vit\.pos_embed).*", "Set MODEL.TRANSFORMER_TYPE to the backbone of the file, if it is whole"),
    (
        r"backbone\.vit\.pos_embed",
        "It was trained on {patches} patches: set INPUT.SIZE_TRAIN, INPUT.SIZE_TEST and MODEL.STRIDE_SIZE accordingly",
    ),
    (r"generalFusion\.moe\.experts\..*", "Set MODEL.HEAD: {heads}"),
    (r"sdtps\..*score_predictor.*", "Set MODEL.SDTPS_USE_PREDICTOR to what it was trained with"),
    (
        r"sdtps\.\w+_aggr\.weight\.3\..*",
        "Set MODEL.SDTPS_SPARSE_RATIO and MODEL.SDTPS_AGGR_RATIO to those it was trained with",
    ),
    (r".*", "Take a file that is whole, and of DeMo or its SDTPS adaptation"),
)


def from_original(content: dict[str, Any], source: str, build: Callable[..., nn.Module]) -> dict[str, Any]:
    """Convert a checkpoint of the original code to one of ours, {model, pids, num_cameras}; return any other as it is.

    Args:
        content: of the file: a state dict, or one under 'state_dict' or 'model'; `module.` prefixes are understood.
        source: the file's name, for messages.
        build: makes the model of the configuration from `num_classes` and `num_cameras`, which are the file's.

    Raises:
        UserError: the file belongs to another model than the configuration's; the message names the key to change.
    """
    state = _unwrap(content)
    if not any(key.startswith(TOWER) for key in state):
        return content
    report = LoadReport(source, ignored=[key for key, value in state.items() if not isinstance(value, Tensor)])
    state = {key: value for key, value in state.items() if key not in report.ignored}
    state = _drop_unused(_rename_backbone(state, report), report)

    # Without a classifier or a camera embedding any number will do: either the file is refused or the model has none.
    num_classes = max((len(state[key]) for key in _matching(r"classifier\w*\.weight", state)), default=1)
    num_cameras = max((len(state[key]) for key in _matching(r"backbone\.sie_embed", state)), default=1)
    with torch.device("meta"):  # only names and shapes are needed
        own = build(num_classes=num_classes, num_cameras=num_cameras).state_dict()
    own = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in own.items()}
    slots = original_slots(own)
    _check_switches(state, slots, source)
    _check_tensors(state, slots, source)
    for key, slot in slots.items():
        slot.copy_(state[key].reshape(slot.shape))
    report.matched = list(state)
    logger.info("%s It is a checkpoint of the original code, of %d classes.", report.summary(), num_classes)
    return {"model": own, "pids": list(range(num_classes)), "num_cameras": num_cameras}


def original_slots(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors under the original's names, as views where we stack several of theirs.

    Tensors of the backbone keep our names, which `_rename_backbone` gives to those of a file.
    """
    slots = {}
    for name, tensor in own.items():
        module, _, leaf = name.rpartition(".")
        if name == "branches.moe.hdm.queries":
            slots |= {QUERIES.format(s=subset.lower()): tensor[s] for s, subset in enumerate(SUBSETS)}
        elif module in EXPERTS:
            num_heads, num_features = own["branches.moe.atmoe.experts.bias"].shape[:2]
            if tensor.dim() == 1:  # the norms, as one
                tensor = tensor.view(num_heads, num_features, -1)
            for h, f in itertools.product(range(num_heads), range(num_features)):
                # The norms share one number of batches.
                part = tensor[h, f] if tensor.dim() else tensor
                slots[f"{EXPERTS[module].format(h=h, f=f)}.{leaf}"] = part
        else:
            ours = next((ours for ours in MODULES if f"{name}.".startswith(f"{ours}.")), "")
            slots[MODULES.get(ours, "") + name.removeprefix(ours)] = tensor
    return slots


def _unwrap(content: dict[str, Any]) -> dict[str, Any]:
    """Take the state dict out of a file, without the prefix of a parallel wrapper."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _rename_backbone(state: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Give the backbone's tensors of a file our names; heads of the tower go to `report.ignored`."""
    tower, renamed = {}, {}
    for key, value in state.items():
        if key in CAMERAS:
            renamed["backbone.sie_embed"] = value
        elif key.startswith(TOWER):
            tower[key.removeprefix(TOWER)] = value
        else:
            renamed[key] = value
    tower_report = LoadReport(report.source)
    renamed |= {f"backbone.{key}": value for key, value in rename_tower(tower, tower_report).items()}
    report.ignored += [TOWER + key for key in tower_report.ignored]
    return renamed


def _drop_unused(state: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Remove the branches that were never used, which the original builds anyway; they go to `report.ignored`."""
    for module, sign, head in BRANCHES:
        if not (_matching(sign, state) and _matching(head, state)):
            unused = _matching(f"{module}|{head}", state)
            report.ignored += unused
            state = {key: value for key, value in state.items() if key not in unused}
    return state


def _matching(pattern: str, names: dict[str, Any]) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name)]


def _check_switches(state: dict[str, Tensor], slots: dict[str, Tensor], source: str) -> None:
    """Make sure that the file has the parts of the model and no others."""
    problems = []
    for key, pattern, on, off in SWITCHES:
        there, here = _matching(pattern, state), _matching(pattern, slots)
        if there and not here:
            problems.append(f"it has {there[0]}: set {key}: {on}")
        elif here and not there:
            problems.append(f"it has no {here[0]}: set {key}: {off}")
    if problems:
        raise UserError(
            f"{source}, a checkpoint of the original code, was trained with another configuration: "
            f"{'; '.join(problems)}."
        )


def _check_tensors(state: dict[str, Tensor], slots: dict[str, Tensor], source: str) -> None:
    """Make sure that the file has the tensors of the model and no others, each of its shape.

    Axes of one do not count: the original has (1, 1, W) for a query and (cameras, 1, W) for the cameras.
    """
    wrong = {
        key: f"{key} is {tuple(state[key].shape)} there and {tuple(slots[key].shape)} here"
        for key in sorted(state.keys() & slots.keys())
        if state[key].squeeze().shape != slots[key].squeeze().shape
    }
    missing, unexpected = sorted(slots.keys() - state.keys()), sorted(state.keys() - slots.keys())
    problems = misfits(missing, unexpected, list(wrong.values()))
    if problems:
        names = [*missing, *unexpected, *wrong]
        remedy = next(remedy for pattern, remedy in DECIDED_BY if any(re.fullmatch(pattern, name) for name in names))
        heads = {key.split(".")[3] for key in _matching(r"generalFusion\.moe\.experts\..*", state)}
        patches = state["backbone.vit.pos_embed"].shape[-2] - 1 if "backbone.vit.pos_embed" in state else 0
        raise UserError(
            f"{source}, a checkpoint of the original code, is not of this model ({problems}). "
            f"{remedy.format(heads=len(heads), patches=patches)}."
        )
