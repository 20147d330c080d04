"""Checkpoints: one dict, written whole or not at all, read without executing anything."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from modeling.backbone.pretrained import misfits
from utils import distributed
from utils.errors import UserError
from utils.integrity import find_non_finite, verify_archive

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pth", "previous.pth", "best.pth"
BROKEN_SUFFIX = ".broken"
"""Put after the name of an unreadable last.pth, or else the next save would move it over the good previous.pth."""
RESUMABLE_KEYS = {
    "model", "optimizer", "scaler", "epoch", "step", "loss_sums", "best", "config", "pids", "num_cameras",
}  # fmt: skip


def save_checkpoint(content: dict[str, Any], path: Path, *, keep_as: Path | None = None) -> None:
    """Write `content` to `path`: to a temporary file first, then renamed, so that a reader sees the old or the new.

    Args:
        keep_as: where the file that stood at `path` is moved to, instead of being replaced.

    Raises:
        UserError: the disk is full or not writable, or a tensor holds nan or inf; the file at `path` is then untouched.
    """
    if (spoiled := find_non_finite(content)) is not None:
        raise UserError(
            f"The checkpoint {path} was not written: {spoiled} holds nan or inf, though the loss was finite. Lower "
            "SOLVER.BASE_LR or SOLVER.BACKBONE_LR, set SOLVER.CLIP_GRAD_NORM, or SOLVER.AMP: off; --resume auto "
            "continues from the last good checkpoint."
        )
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a killed run has left is written over
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        cause = error  # torch wraps what the disk said in an error of its own
        while cause.__context__ is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise UserError(
            f"Could not write the checkpoint {path}: {' '.join(str(cause).split())}. Free space or set OUTPUT_DIR to "
            "another disk, then continue with --resume auto; what was saved before is intact."
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dict in a checkpoint, on the CPU.

    Raises:
        UserError: no such file, or it is truncated or damaged, is no checkpoint, or holds more than plain data, or nan.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}. Train first, or name one that exists.")
    try:
        verify_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        spoiled = find_non_finite(content)
    except Exception as error:  # torch raises five kinds of error here; a list may hold itself
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is no readable checkpoint (truncated, or not one of tensors and plain data): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the dict of a checkpoint.")
    if spoiled is not None:
        raise UserError(f"{path} is no usable checkpoint: {spoiled} holds nan or inf.")
    return content


def load_resumable(source: str, output_dir: Path) -> dict[str, Any] | None:
    """The checkpoint to continue from: `source` is a path, or 'auto' for the newest readable one of the run, if any.

    Raises:
        UserError: the named file cannot be read, or 'auto' found files and none of them can.
    """
    if source != "auto":
        return _resumable(Path(source))
    candidates = [path for path in (output_dir / LAST, output_dir / PREVIOUS) if path.exists()]
    broken: list[str] = []
    for path in candidates:
        try:
            content = _resumable(path)
        except UserError as error:
            broken.append(str(error))
            logger.info("warning: %s Trying the one before.", error)
        else:
            logger.info("Resuming from %s.", path)
            if broken and distributed.is_main():
                os.replace(output_dir / LAST, output_dir / f"{LAST}{BROKEN_SUFFIX}")
            return content
    if broken:
        raise UserError(f"--resume auto found no readable checkpoint in {output_dir}. {' '.join(broken)}")
    return None


def _resumable(path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    missing = RESUMABLE_KEYS - content.keys()
    if missing:
        raise UserError(f"{path} cannot be resumed: it lacks {', '.join(sorted(missing))}. Resume from a {LAST}.")
    return content


def load_model_state(model: torch.nn.Module, state: dict[str, Any], source: str) -> None:
    """Load `state` into `model`, strictly.

    Raises:
        UserError: keys or shapes differ; the model is then unchanged.
    """
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{source} holds no state dict of tensors. Use a {LAST} or {BEST} of a run.")
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if problems := misfits(missing, unexpected, sorted(shapes)):
        raise UserError(
            f"The weights in {source} are not of this model ({problems}). Use the configuration they were trained "
            "with: config.yaml in the folder of that run."
        )
    model.load_state_dict(state)
