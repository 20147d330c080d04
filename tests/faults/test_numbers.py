"""Nan and inf that are injected into a running training spoil no checkpoint, and memory stays flat."""

import pytest
import torch

from engine.checkpoint import load_resumable

EPOCH, STEP = 1, 1
"""The fault strikes at these, both from 0; epoch 1 is saved by then."""
GROWTH_MIB = 8
"""It lies between what allocators and caches still take on after ten epochs (0.5 MiB) and what 40 epochs (240 steps)
use when each step leaves its graph behind (50 MiB); the second run below shows that the measure sees it."""


def inject(where: str, value: float) -> None:
    """In the child, put `value` into one number at the chosen step."""
    from data.loading.augment import TrainAugment
    from engine.train import Trainer

    step = Trainer.train_step

    def poisoned(trainer, batch):
        state = trainer.state
        if (state.epoch, state.step) == (EPOCH, STEP):
            if where == "image":
                augment = TrainAugment.with_mask
                TrainAugment.with_mask = lambda *args: (_with(augment(*args)[0], value), None)
            elif where == "weight":
                state.model.backbone.vit.blocks[0].norm1.weight.data[3] = value
            elif where == "loss":
                loss = trainer.loss
                trainer.loss = lambda *inputs: {name: item * value for name, item in loss(*inputs).items()}
            else:
                state.model.backbone.vit.blocks[0].norm1.weight.register_hook(lambda grad: grad + value)
        return step(trainer, batch)

    Trainer.train_step = poisoned


def _with(images, value):
    images[0, 1, 2, 3, 4] = value
    return images


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["image", "weight", "loss", "gradient"])
def test_no_checkpoint_is_spoiled(launch, small, tmp_path, where, value):
    """The run stops within the epoch and says why; last.pth is still the good one of the epoch before."""
    out, argv = tmp_path / "out", ["--config_file", small]
    message = launch("train_net", *argv, before=(inject, where, value)).is_refused("--resume auto")
    assert "Non-finite loss at epoch 2, step" in message or "holds nan or inf" in message
    for name in ("last.pth", "best.pth"):
        saved = torch.load(out / name, weights_only=True)
        assert saved["epoch"] == 1 and all(torch.isfinite(tensor).all() for tensor in saved["model"].values())
    assert load_resumable("auto", out).epoch == 1


@pytest.mark.slow
def test_a_gradient_that_is_nan_in_the_last_step_of_an_epoch_reaches_no_file(launch, small, tmp_path):
    """No loss is computed after it, and without an evaluation no feature either, so the save itself has to check."""
    out, argv = tmp_path / "out", ["--config_file", small, "SOLVER.MAX_EPOCHS", 3, "SOLVER.EVAL_PERIOD", 3]
    run = launch("train_net", *argv, before=(_spoil_the_last_gradient,))
    run.is_refused("last.pth was not written", "model.backbone", "nan or inf", "though the loss was finite")
    assert torch.load(out / "last.pth", weights_only=True)["epoch"] == 1
    launch("train_net", *argv, "--resume", "auto").ends_well()


def _spoil_the_last_gradient():
    from engine.train import Trainer

    step = Trainer.train_step

    def spoiled(trainer, batch):
        if trainer.state.epoch == EPOCH and trainer.state.step == len(trainer.loader.batch_sampler) - 1:
            trainer.state.model.backbone.vit.norm.weight.register_hook(lambda grad: grad + float("nan"))
        return step(trainer, batch)

    Trainer.train_step = spoiled


def watch_memory(report, leak: bool) -> None:
    """In the child, write the resident memory in MiB after each epoch to `report`; `leak` keeps every step's graph."""
    from engine.train import Trainer

    epoch, step, kept = Trainer._train_epoch, Trainer.train_step, []

    def watched(trainer, stop):
        record = epoch(trainer, stop)
        with open(report, "a") as file:
            file.write(f"{resident_mib()}\n")
        return record

    def leaking(trainer, batch):
        hook = trainer.state.model.register_forward_hook(lambda *args: kept.append(args[2].logits))
        losses = step(trainer, batch)
        hook.remove()
        return losses

    Trainer._train_epoch = watched
    if leak:
        Trainer.train_step = leaking


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("leak", [False, True])
def test_memory_is_flat_over_fifty_epochs(launch, tiny, tmp_path, leak):
    """The second run keeps what each step computed, and shows that the measure would see a leak."""
    report, argv = (
        tmp_path / "memory",
        ["SOLVER.MAX_EPOCHS", 50, "SOLVER.EVAL_PERIOD", 5, "SOLVER.CHECKPOINT_PERIOD", 5],
    )
    launch("train_net", "--config_file", tiny, *argv, before=(watch_memory, report, leak)).ends_well()
    after = [float(line) for line in report.read_text().split()]
    assert len(after) == 50
    assert (after[49] - after[9] > GROWTH_MIB) == leak, after
