"""The training loop: one state, one step, a straight loop over epochs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from data.loading.augment import TrainAugment
from data.sample import Batch
from engine.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, load_model_state, saved_epoch
from engine.interrupt import Interrupted, StopRequest
from engine.loss_meter import LossMeter
from engine.observers import Observer
from engine.precision import Precision
from engine.run_folder import RunFolder
from modeling.model import ReIDOutput
from solver.schedule import EpochSchedule
from utils import distributed
from utils.errors import UserError
from utils.progress import Pace, progress_bar
from utils.seeding import derive_seed, seed_all

logger = logging.getLogger(__name__)

# Separate streams of random numbers within a step: the model's (drop path, Gumbel) and the augmentation's.
MODEL_STREAM, AUGMENT_STREAM = 0, 1


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the loop needs to know, in the words of the configuration."""

    max_epochs: int
    seed: int
    eval_period: int
    checkpoint_period: int
    log_period: int
    clip_grad_norm: float
    """Largest norm of the gradient; 0 does not clip."""
    eval_untrained: bool
    metadata: dict[str, Any]
    """The fields 'config', 'pids' and 'num_cameras' of every checkpoint."""


@dataclass
class TrainState:
    """Mutable training state."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: EpochSchedule
    scaler: torch.amp.GradScaler
    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps done in the epoch under way."""
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Sums over those steps, by loss; filled when the epoch is interrupted."""
    best: dict[str, float] = field(default_factory=dict)
    """'epoch' and 'score' of the best evaluation so far."""


class Trainer:
    """Ties the parts of a run together and runs it.

    Args:
        state: the model, its optimiser and how far the run has come.
        loss: (output, batch) to a dict of weighted losses.
        loader: batches of uint8 images; its `batch_sampler` has `set_epoch(epoch, start_batch)` and `batches`.
        augment: bytes to a float batch, on the device.
        evaluate: the model to {'score': value, 'eval': {descriptor: {metric: value}}, ...}; 'best' has the best score.
        folder: where everything is written.
        forward: what a training step calls: the model itself, or the model compiled or distributed.
        observers: what watches the training.
    """

    def __init__(
        self,
        state: TrainState,
        options: TrainOptions,
        *,
        loss: Callable[[ReIDOutput, Batch], dict[str, Tensor]],
        loader: Iterable[Batch],
        augment: TrainAugment,
        evaluate: Callable[[nn.Module], dict[str, Any]],
        folder: RunFolder,
        precision: Precision,
        forward: Callable[..., ReIDOutput],
        observers: Sequence[Observer] = (),
    ) -> None:
        self.state = state
        self.options = options
        self.loss = loss
        self.loader = loader
        self.augment = augment
        self.evaluate = evaluate
        self.forward = forward
        self.observers = observers
        self.folder = folder
        self.precision = precision
        self.device = precision.device
        self.generator = torch.Generator(self.device)
        # The main process draws what a single one would; the augmentation draws for the whole batch in all of them.
        self.model_stream = (MODEL_STREAM, distributed.rank()) if distributed.rank() else (MODEL_STREAM,)
        self._gradients_checked = False

    def fit(self) -> None:
        """Train from the current state to the last epoch.

        Raises:
            Interrupted: a signal asked to stop; the state is saved.
            UserError: a loss was not finite, or the disk is full.
        """
        state, options = self.state, self.options
        pace = Pace(state.epoch + state.step / max(1, len(self.loader.batch_sampler)), options.max_epochs)
        with StopRequest() as stop:
            if state.epoch == state.step == 0 and options.eval_untrained:
                self._report({"epoch": 0, **self.evaluate(state.model)}, pace)
            while state.epoch < options.max_epochs:
                record = self._train_epoch(stop)
                last = state.epoch == options.max_epochs
                if last or state.epoch % options.eval_period == 0:
                    record |= self.evaluate(state.model)
                    self._keep_best(record)
                self._report(record, pace)
                signum = stop.poll()
                if last or signum is not None or state.epoch % options.checkpoint_period == 0:
                    self._save()
                if signum is not None and not last:
                    raise Interrupted(signum)

    def _train_epoch(self, stop: StopRequest) -> dict[str, Any]:
        """Run the rest of the epoch under way and return its record."""
        state, sampler = self.state, self.loader.batch_sampler
        state.model.train().start_epoch(state.epoch)
        state.schedule.set_epoch(state.epoch)
        sampler.set_epoch(state.epoch, start_batch=state.step)
        num_steps, batch_size = sampler.batches.shape
        meter = LossMeter(state.epoch + 1, sums=state.loss_sums, step=state.step, device=self.device)
        first_step, start = state.step, time.perf_counter()
        progress = {"total": num_steps * batch_size, "initial": first_step * batch_size, "unit": "samples"}
        with progress_bar(**progress, desc=f"epoch {state.epoch + 1}/{self.options.max_epochs}") as bar:
            for batch in self.loader:
                meter.push(self.train_step(batch))
                self._check_gradients()
                state.step += 1
                bar.update(batch_size)
                if state.step % self.options.log_period == 0 and meter.latest:
                    bar.set_postfix(loss=f"{meter.latest['total']:.3f}", refresh=False)
                if (signum := stop.poll()) is not None and state.step < num_steps:
                    state.loss_sums = meter.sums()
                    self._save()
                    raise Interrupted(signum)
        record = {
            "epoch": state.epoch + 1,
            "losses": meter.means(),
            "lr": {group["name"]: group["lr"] for group in state.optimizer.param_groups},
            "samples_per_s": (state.step - first_step) * batch_size / (time.perf_counter() - start),
        }
        for observer in self.observers:
            record |= observer.read()
        state.epoch, state.step, state.loss_sums = state.epoch + 1, 0, {}
        return record

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one optimiser step without waiting for the device.

        Returns:
            The losses, 'total' first, detached and on the device.
        """
        state, options = self.state, self.options
        seed_all(derive_seed(options.seed, state.epoch, state.step, *self.model_stream))
        self.generator.manual_seed(derive_seed(options.seed, state.epoch, state.step, AUGMENT_STREAM))
        with record_function("copy and augmentation"):
            batch = batch.to(self.device)
            present = self.augment.drop_modalities(batch.present, self.generator)
            images, masks = self.augment.with_mask(batch.images, batch.mask, present, self.generator)
            info = state.model.describe(batch.index, masks)
        with record_function("forward and losses"):
            with self.precision.autocast():
                output = self.forward(images, batch.camera, present, info)
                losses = self.loss(output, batch)
            total = torch.stack(list(losses.values())).sum()
        with record_function("backward"):
            state.optimizer.zero_grad(set_to_none=True)
            state.scaler.scale(total).backward()
        for observer in self.observers:
            observer.after_backward(state.step, output, present, state.scaler)
        with record_function("optimiser"):
            if options.clip_grad_norm:
                state.scaler.unscale_(state.optimizer)
                nn.utils.clip_grad_norm_(state.model.parameters(), options.clip_grad_norm)
            # The fused optimisers skip their step where this is 1, so a non-finite loss changes no weight, without a
            # device sync. An enabled scaler sets it by itself.
            state.optimizer.found_inf = (~torch.isfinite(total.detach())).float()
            state.scaler.step(state.optimizer)
            state.scaler.update()
        return {"total": total.detach()} | {name: value.detach() for name, value in losses.items()}

    def _check_gradients(self) -> None:
        """Name, once in a run, the trainable parameters that its first backward pass has not reached."""
        if self._gradients_checked:
            return
        self._gradients_checked = True
        idle = [name for name, p in self.state.model.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            names = ", ".join(idle[:8]) + (", ..." if len(idle) > 8 else "")
            logger.info(
                f"warning: no gradient reached {len(idle)} trainable parameters after the first step: {names}, so they "
                "will not learn with this configuration."
            )

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint that holds a whole run.

        Raises:
            UserError: it is of another model, optimiser or set of identities.
        """
        state = self.state
        for name, what in (("pids", "identities"), ("num_cameras", "cameras")):
            if getattr(checkpoint, name) != self.options.metadata[name]:
                raise UserError(
                    f"{checkpoint.path} was trained on other {what} than DATASETS.NAMES and DATASETS.ROOT_DIR give "
                    "now. Resume with the data set it was started on, or train again in another OUTPUT_DIR."
                )
        load_model_state(state.model, checkpoint.model, checkpoint.path)
        self._load_optimizer(checkpoint)
        if checkpoint.scaler:
            state.scaler.load_state_dict(checkpoint.scaler)
        state.epoch, state.step = checkpoint.epoch, checkpoint.step
        state.loss_sums, state.best = checkpoint.loss_sums, checkpoint.best
        if state.best and saved_epoch(self.folder.path / BEST) != state.best["epoch"]:
            # It is missing or broken, or was written after the checkpoint.
            logger.info("warning: %s does not belong to this checkpoint; 'best' is reset.", self.folder.path / BEST)
            state.best = {}
        for observer in self.observers:
            if observer.name in checkpoint.observers:
                observer.load_state_dict(checkpoint.observers[observer.name])

    def _load_optimizer(self, checkpoint: Checkpoint) -> None:
        optimizer = self.state.optimizer
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        try:
            if not checkpoint.fits(optimizer):
                raise ValueError("it is of another SOLVER.OPTIMIZER_NAME")
            optimizer.load_state_dict(checkpoint.optimizer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"does not fit this configuration: {error}"
            raise UserError(f"The optimiser state in {checkpoint.path} {reason}.") from error
        for group, configured in zip(optimizer.param_groups, settings, strict=True):
            group.update(configured)  # the rates and decays of the configuration, in case they have changed

    def _keep_best(self, record: dict[str, Any]) -> None:
        """Write best.pth when this evaluation is the best so far; of equal ones the earlier stays."""
        state = self.state
        if not state.best or record["score"] > state.best["score"]:
            state.best = {"epoch": state.epoch, "score": record["score"]}
            if distributed.is_main():
                best = Checkpoint(model=state.model.state_dict(), epoch=state.epoch, **self.options.metadata)
                best.save(self.folder.path / BEST)

    def _save(self) -> None:
        """Write last.pth; every process waits until it is written.

        Random numbers are functions of (seed, epoch, step) and need no state.
        """
        state = self.state
        if distributed.is_main():
            checkpoint = Checkpoint(
                model=state.model.state_dict(),
                optimizer=state.optimizer.state_dict(),
                optimizer_name=type(state.optimizer).__name__,
                scaler=state.scaler.state_dict(),
                epoch=state.epoch,
                step=state.step,
                loss_sums=state.loss_sums,
                best=state.best,
                observers={observer.name: observer.state_dict() for observer in self.observers},
                **self.options.metadata,
            )
            checkpoint.save(self.folder.path / LAST, keep_as=self.folder.path / PREVIOUS)
        distributed.barrier()

    def _report(self, record: dict[str, Any], pace: Pace) -> None:
        """Write the record of an epoch to metrics.jsonl and the log."""
        self.folder.append(record)
        parts = [f"epoch {record['epoch']}/{self.options.max_epochs}"]
        if "losses" in record:
            parts.append("  ".join(f"{name} {value:.3f}" for name, value in record["losses"].items()))
            parts.append(f"{record['samples_per_s']:.0f} samples/s, {pace.time_left(record['epoch'])} left")
        for descriptor, metrics in record.get("eval", {}).items():
            parts.append(f"{descriptor}: mAP {metrics['mAP']:.1f} R1 {metrics['R1']:.1f}")
        logger.info(" | ".join(parts))
