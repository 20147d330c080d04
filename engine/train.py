"""The training loop: one state, one step, a straight loop over epochs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from data.loading.augment import TrainAugment
from data.sample import Batch
from engine.checkpoint import BEST, LAST, PREVIOUS, load_model_state, save_checkpoint
from engine.interrupt import Interrupted, StopRequest
from engine.precision import Precision
from engine.run_folder import RunFolder
from engine.watch import LossWatch
from modeling.model import ReIDOutput
from modeling.selection.diagnostics import SelectionDiagnostics
from solver.schedule import EpochSchedule
from utils import distributed
from utils.errors import UserError
from utils.progress import progress_bar
from utils.seeding import derive_seed, seed_all

logger = logging.getLogger(__name__)

MODEL_STREAM, AUGMENT_STREAM = 0, 1
"""Separate streams of random numbers within a step: the model's (drop path, Gumbel) and the augmentation's."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the loop needs to know, in the words of the configuration."""

    max_epochs: int
    seed: int
    eval_period: int = 1
    checkpoint_period: int = 1
    log_period: int = 10
    clip_grad_norm: float = 0.0
    eval_untrained: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    """Plain data stored in every checkpoint: configuration, identities, cameras."""


@dataclass
class TrainState:
    """All that changes while a run goes on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: EpochSchedule
    scaler: torch.amp.GradScaler
    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps done in the epoch that is under way."""
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Sums over those steps, by loss; filled when the epoch is interrupted."""
    best: dict[str, float] = field(default_factory=dict)
    """'epoch' and 'score' of the best evaluation so far."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it. Random numbers are functions of (seed, epoch, step) and need no state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sums": self.loss_sums,
            "best": self.best,
        }

    def load_state_dict(self, content: dict[str, Any], source: str) -> None:
        """Continue from a checkpoint.

        Raises:
            UserError: it is of another model or optimiser.
        """
        load_model_state(self.model, content["model"], source)
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            if any(("betas" in group) != ("betas" in groups[0]) for group in content["optimizer"]["param_groups"]):
                raise ValueError("it is of another SOLVER.OPTIMIZER_NAME")
            self.optimizer.load_state_dict(content["optimizer"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"The optimiser state in {source} does not fit this configuration: {error}.") from error
        for group, own in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(own)  # the configuration's rates and decays, should they have changed
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.step = content["epoch"], content["step"]
        self.loss_sums, self.best = content["loss_sums"], content["best"]


class Trainer:
    """Ties the parts of a run together and runs it.

    Args:
        state: the model, its optimiser and where they are.
        loss: (features, logits, pid) to a dict of weighted losses.
        loader: batches of uint8 images; its `batch_sampler` has `set_epoch(epoch, start_batch)`.
        augment: bytes to a float batch, on the device.
        evaluate: scores the model: {'score': headline figure, 'eval': {descriptor: {metric: value}}, ...}.
        folder: where everything is written.
        forward: what a training step calls, where that is not the model itself (compiled, distributed).
        diagnostics: gathers figures on the patch selection, where there is one.
    """

    def __init__(
        self,
        state: TrainState,
        options: TrainOptions,
        *,
        loss: nn.Module,
        loader: Iterable[Batch],
        augment: TrainAugment,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        folder: RunFolder,
        precision: Precision,
        forward: Callable[..., ReIDOutput] | None = None,
        diagnostics: SelectionDiagnostics | None = None,
    ) -> None:
        self.state = state
        self.options = options
        self.loss = loss
        self.loader = loader
        self.augment = augment
        self.evaluate = evaluate
        self.forward = state.model if forward is None else forward
        self.diagnostics = diagnostics
        self.folder = folder
        self.precision = precision
        self.device = precision.device
        self.generator = torch.Generator(self.device)
        # Processes draw apart; the main one draws what a single one would.
        self.model_stream = (MODEL_STREAM, distributed.rank()) if distributed.rank() else (MODEL_STREAM,)

    def fit(self) -> None:
        """Train from where the state is to the last epoch.

        Raises:
            Interrupted: a signal asked to stop; the state is saved.
            UserError: a loss was not finite, or the disk is full.
        """
        state, options = self.state, self.options
        self._clock = (time.perf_counter(), state.epoch + state.step / max(1, len(self.loader.batch_sampler)))
        with StopRequest() as stop:
            if state.epoch == state.step == 0 and options.eval_untrained:
                self._report({"epoch": 0, **self.evaluate(state.model)})
            while state.epoch < options.max_epochs:
                record = self._train_epoch(stop)
                last = state.epoch == options.max_epochs
                if last or state.epoch % options.eval_period == 0:
                    record |= self.evaluate(state.model)
                    self._keep_best(record)
                self._report(record)
                signum = stop.poll()
                if last or signum is not None or state.epoch % options.checkpoint_period == 0:
                    self._save()
                if signum is not None and not last:
                    raise Interrupted(signum)

    def _train_epoch(self, stop: StopRequest) -> dict[str, Any]:
        """Run the rest of the epoch that is under way and return its record."""
        state = self.state
        state.model.train()
        state.schedule.set_epoch(state.epoch)
        self.loader.batch_sampler.set_epoch(state.epoch, start_batch=state.step)
        steps = len(self.loader.batch_sampler)
        names: tuple[str, ...] = tuple(state.loss_sums)
        sums = torch.tensor(list(state.loss_sums.values()), device=self.device) if names else 0.0
        watch, seen, start = LossWatch(), 0, time.perf_counter()
        title = f"epoch {state.epoch + 1}/{self.options.max_epochs}"
        batches = self.loader.batch_sampler.batches  # (steps, batch size)
        images, done, batch_size = batches.size, batches[: state.step].size, batches.shape[1]
        with progress_bar(total=images, initial=done, desc=title, unit="img") as bar:
            for batch in self.loader:
                losses = self.train_step(batch)
                names = tuple(losses)
                values = torch.stack(list(losses.values()))
                watch.push(state.epoch + 1, state.step + 1, names, values)
                sums = sums + values
                state.step += 1
                seen += batch_size
                bar.update(batch_size)
                if state.step % self.options.log_period == 0 and watch.latest:
                    bar.set_postfix(loss=f"{watch.latest['total']:.3f}", refresh=False)
                if (signum := stop.poll()) is not None and state.step < steps:
                    watch.flush()
                    state.loss_sums = dict(zip(names, sums.tolist(), strict=True))
                    self._save()
                    raise Interrupted(signum)
        watch.flush()
        means = (sums / state.step).tolist()
        record = {
            "epoch": state.epoch + 1,
            "losses": dict(zip(names, means, strict=True)),
            "lr": {group["name"]: group["lr"] for group in state.optimizer.param_groups},
            "samples_per_s": seen / (time.perf_counter() - start),
        }
        if self.diagnostics is not None:
            record |= self.diagnostics.read()
        state.epoch, state.step, state.loss_sums = state.epoch + 1, 0, {}
        return record

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step; returns the losses, 'total' first, detached and on the device. Waits for nothing."""
        state, options = self.state, self.options
        seed_all(derive_seed(options.seed, state.epoch, state.step, *self.model_stream))
        self.generator.manual_seed(derive_seed(options.seed, state.epoch, state.step, AUGMENT_STREAM))
        batch = batch.to(self.device)
        present = self.augment.drop_modalities(batch.present, self.generator)
        images = self.augment(batch.images, present, self.generator)
        with self.precision.autocast():
            output = self.forward(images, batch.camera, present)
            losses = self.loss(output, batch)
        total = torch.stack(list(losses.values())).sum()

        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(total).backward()
        if self.diagnostics is not None:
            self.diagnostics.after_backward(state.step, output, present, state.scaler)
        if options.clip_grad_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), options.clip_grad_norm)
        # The fused optimisers skip their step where this is 1, so that a non-finite loss spoils no weight and yet
        # nobody has to wait to see it. An enabled scaler sets it by itself.
        state.optimizer.found_inf = (~torch.isfinite(total.detach())).float()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return {"total": total.detach()} | {name: value.detach() for name, value in losses.items()}

    def _keep_best(self, record: dict[str, Any]) -> None:
        """Write best.pth when this evaluation is the best so far (the earlier of equals stays)."""
        state = self.state
        if not state.best or record["score"] > state.best["score"]:
            state.best = {"epoch": state.epoch, "score": record["score"]}
            if distributed.is_main():
                content = {"model": state.model.state_dict(), "epoch": state.epoch, **self.options.metadata}
                save_checkpoint(content, self.folder.path / BEST)

    def _save(self) -> None:
        """Write last.pth; every process waits until it is there."""
        if distributed.is_main():
            content = self.state.state_dict() | self.options.metadata
            if self.diagnostics is not None:
                content["diagnostics"] = self.diagnostics.state_dict()
            save_checkpoint(content, self.folder.path / LAST, keep_as=self.folder.path / PREVIOUS)
        distributed.barrier()

    def _report(self, record: dict[str, Any]) -> None:
        """Write the record of an epoch to metrics.jsonl and the log."""
        self.folder.append(record)
        parts = [f"epoch {record['epoch']}/{self.options.max_epochs}"]
        if "losses" in record:
            parts.append("  ".join(f"{name} {value:.3f}" for name, value in record["losses"].items()))
            parts.append(f"{record['samples_per_s']:.0f} img/s, {self._time_left()} left")
        for descriptor, metrics in record.get("eval", {}).items():
            parts.append(f"{descriptor}: mAP {metrics['mAP']:.1f} R1 {metrics['R1']:.1f}")
        logger.info(" | ".join(parts))

    def _time_left(self) -> str:
        """What the remaining epochs will take at the pace since the start, as h:mm:ss."""
        start, first_epoch = self._clock
        pace = (time.perf_counter() - start) / (self.state.epoch - first_epoch)
        return str(timedelta(seconds=round(pace * (self.options.max_epochs - self.state.epoch))))
