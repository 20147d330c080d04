"""Checkpoints: one type that is written whole or not at all and read without executing anything."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeling.backbone.pretrained import misfits
from modeling.checkpoint_names import upgrade_names
from utils import distributed
from utils.errors import UserError
from utils.files import atomic_write
from utils.integrity import find_non_finite, verify_archive

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pth", "previous.pth", "best.pth"
# Appended to the name of an unreadable last.pth, so that the next save does not overwrite previous.pth with it.
BROKEN_SUFFIX = ".broken"
# Fields that a run can be resumed without, because files of older versions lack them.
OPTIONAL = {"optimizer_name"}


@dataclass(kw_only=True)
class Checkpoint:
    """What a file of a run holds: last.pth everything, best.pth the fields of the model alone.

    In the file each field is an entry of one dict, and so is the state of each observer under the observer's name.
    """

    model: dict[str, Tensor]
    """The model's state dict."""
    epoch: int | None = None
    """Epochs completed."""
    config: str | None = None
    """The configuration as YAML."""
    pids: list[int] | None = None
    """The sorted identities of the training set; their order is that of the classifiers' rows."""
    num_cameras: int | None = None
    """Cameras of the training set."""
    step: int | None = None
    """Steps done in the epoch under way."""
    optimizer: dict[str, Any] | None = None
    optimizer_name: str | None = None
    """The class of the optimiser; older files do not name it."""
    scaler: dict[str, Any] | None = None
    loss_sums: dict[str, float] | None = None
    """Sums over the steps done, by loss."""
    best: dict[str, float] | None = None
    """'epoch' and 'score' of the best evaluation so far."""
    observers: dict[str, Any] = field(default_factory=dict)
    """States of the observers by name."""
    path: Path | None = None
    """The file that it was read from; not saved."""

    @classmethod
    def from_content(cls, content: dict[str, Any], path: Path | None = None) -> Checkpoint:
        """Return the checkpoint in the dict of a file; a bare state dict is one of a model alone."""
        if "model" not in content:
            content = {"model": content}
        known = {name: content[name] for name in FILE_FIELDS if name in content}
        return cls(**known, observers={k: v for k, v in content.items() if k not in known}, path=path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read the checkpoint at `path`, on the CPU.

        Raises:
            UserError: as `load_checkpoint`.
        """
        return cls.from_content(load_checkpoint(path), path)

    def save(self, path: Path, *, keep_as: Path | None = None) -> None:
        """Write the fields that are set to `path`, whole or not at all.

        Args:
            keep_as: where to move the file that stood at `path`, instead of replacing it.

        Raises:
            UserError: the disk is full or not writable, or a tensor holds nan or inf; the file at `path` is untouched.
        """
        content = {name: value for name in FILE_FIELDS if (value := getattr(self, name)) is not None} | self.observers
        if (spoiled := find_non_finite(content)) is not None:
            raise UserError(
                f"The checkpoint {path} was not written: {spoiled} holds nan or inf, though the loss was finite. Lower "
                "SOLVER.BASE_LR or SOLVER.BACKBONE_LR, set SOLVER.CLIP_GRAD_NORM, or SOLVER.AMP: off; --resume auto "
                "continues from the last good checkpoint."
            )
        try:
            with atomic_write(path, "wb", keep_as=keep_as) as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:
            cause = error  # torch wraps the operating system's error in one of its own
            while cause.__context__ is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise UserError(
                f"Could not write the checkpoint {path}: {' '.join(str(cause).split())}. Free space or set OUTPUT_DIR "
                "to another disk, then continue with --resume auto; what was saved before is intact."
            ) from error

    @property
    def position(self) -> int:
        """How far the run had come; later checkpoints have a larger number."""
        return (self.epoch << 32) + self.step

    def fits(self, optimizer: torch.optim.Optimizer) -> bool:
        """Tell whether the state of the optimiser belongs to an optimiser of this class."""
        name = type(optimizer).__name__
        if self.optimizer_name is not None:
            return self.optimizer_name == name
        # Older files do not name it: only the groups of Adam and AdamW have 'betas'.
        return all(("betas" in group) == (name != "SGD") for group in self.optimizer["param_groups"])


FILE_FIELDS = [item.name for item in fields(Checkpoint) if item.name not in ("observers", "path")]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the dict in a file that torch.save wrote, on the CPU.

    Raises:
        UserError: there is no such file, or it is truncated, damaged or not a checkpoint, or it holds more than tensors
            and plain data, or nan or inf.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}. Train first, or name one that exists.")
    try:
        verify_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        spoiled = find_non_finite(content)
    except Exception as error:  # torch raises five kinds of error here, and a list that contains itself a sixth
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is no readable checkpoint (truncated, or not one of tensors and plain data): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the dict of a checkpoint.")
    if spoiled is not None:
        raise UserError(f"{path} is no usable checkpoint: {spoiled} holds nan or inf.")
    return content


def load_resumable(source: str, output_dir: Path) -> Checkpoint | None:
    """Find the checkpoint to continue from.

    Args:
        source: a path, or 'auto' for the newest readable checkpoint in `output_dir`, if there is one.
        output_dir: the folder of the run.

    Raises:
        UserError: the named file cannot be read, or 'auto' found files and none of them can be read.
    """
    if source != "auto":
        return _load_complete(Path(source))
    broken: list[str] = []
    for path in (output_dir / LAST, output_dir / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = _load_complete(path)
        except UserError as error:
            broken.append(str(error))
            logger.info("warning: %s Trying the one before.", error)
        else:
            logger.info("Resuming from %s.", path)
            if broken and distributed.is_main():
                os.replace(output_dir / LAST, output_dir / f"{LAST}{BROKEN_SUFFIX}")
            return checkpoint
    if broken:
        raise UserError(f"--resume auto found no readable checkpoint in {output_dir}. {' '.join(broken)}")
    return None


def _load_complete(path: Path) -> Checkpoint:
    checkpoint = Checkpoint.load(path)
    missing = [name for name in FILE_FIELDS if getattr(checkpoint, name) is None and name not in OPTIONAL]
    if missing:
        raise UserError(f"{path} cannot be resumed: it lacks {', '.join(sorted(missing))}. Resume from a {LAST}.")
    return checkpoint


def saved_epoch(path: Path) -> int | None:
    """Return the epoch of the checkpoint at `path`; None without one that can be read."""
    try:
        return Checkpoint.load(path).epoch
    except UserError:
        return None


def load_model_state(model: torch.nn.Module, state: dict[str, Any], source: str | Path) -> None:
    """Load `state` from the file `source`, which may be of an older version, into `model`, strictly.

    Raises:
        UserError: keys or shapes differ; the model is then unchanged.
    """
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{source} holds no state dict of tensors. Use a {LAST} or {BEST} of a run.")
    state, own = upgrade_names(state), model.state_dict()
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
