"""The training step: it skips non-finite losses, is labelled for the profiler, and is watched by observers."""

import logging

import pytest
import torch

import train_net
from tests.helpers.runs import fails, make_trainer


def test_a_non_finite_loss_stops_before_the_optimiser_step(tiny, tmp_path, monkeypatch, capsys):
    step, seen = train_net.Trainer.train_step, {}

    def poisoned(self, batch):
        if (self.state.epoch, self.state.step) == (1, 1):
            seen["before"] = {name: p.detach().clone() for name, p in self.state.model.named_parameters()}
            seen["model"], loss = self.state.model, self.loss
            self.loss = lambda *inputs: {name: value * float("nan") for name, value in loss(*inputs).items()}
        return step(self, batch)

    monkeypatch.setattr(train_net.Trainer, "train_step", poisoned)
    message = fails(capsys, train_net, "--config_file", tiny)
    assert "Non-finite loss at epoch 2, step 2" in message and "id/sdtps = nan" in message
    assert all(torch.equal(p, seen["before"][name]) for name, p in seen["model"].named_parameters())
    assert torch.load(tmp_path / "out" / "last.pth", weights_only=True)["epoch"] == 1


def test_the_parts_of_a_step_are_labelled(tiny):
    trainer = make_trainer(tiny)
    with torch.profiler.profile() as profile:
        trainer.train_step(next(iter(trainer.loader)))
    labels = {"copy and augmentation", "forward and losses", "backbone", "branches and heads", "backward", "optimiser"}
    assert labels <= {event.key for event in profile.key_averages()}


class Recorder:
    """An observer that notes what it is shown."""

    name = "recorder"

    def __init__(self):
        self.steps, self.evaluations = [], []

    def after_backward(self, step, output, present, scaler):
        assert present.shape == (4, 3) and scaler.get_scale() == 1.0
        self.steps.append((step, output.embedding.shape[0]))

    def after_evaluation(self, kept, present):
        self.evaluations.append((kept.shape, present.shape))
        return {"evaluations": len(self.evaluations)}

    def read(self):
        return {"recorder": {"steps": len(self.steps)}}

    def state_dict(self):
        return {"steps": len(self.steps)}

    def load_state_dict(self, content):
        self.steps = [None] * content["steps"]


def test_observers_see_every_step_and_evaluation_and_are_saved(tiny, monkeypatch, tmp_path):
    observer = Recorder()
    monkeypatch.setattr("engine.build.build_observers", lambda *_: [observer])
    trainer = make_trainer(tiny, "SOLVER.MAX_EPOCHS", 2)
    trainer.fit()
    trainer.folder.close()
    second = observer.steps.index((0, 4), 1)  # where the second epoch begins
    total = len(observer.steps)
    assert observer.steps == [(step, 4) for step in (*range(second), *range(total - second))]
    assert observer.evaluations == [((16, 3, 4), (16, 3))] * 3
    lines = list(trainer.folder.records())
    assert [line["selection"]["evaluations"] for line in lines] == [1, 2, 3]
    assert [line["recorder"]["steps"] for line in lines[1:]] == [second, total]
    assert torch.load(tmp_path / "out" / "last.pth", weights_only=True)["recorder"] == {"steps": total}


def warnings_of(trainer, caplog):
    """The warnings about gradients of a run."""
    with caplog.at_level(logging.INFO):
        trainer.fit()
    trainer.folder.close()
    return [record.getMessage() for record in caplog.records if "no gradient" in record.getMessage()]


def test_parameters_that_no_gradient_reaches_are_named_once(tiny, caplog):
    trainer = make_trainer(tiny, "SOLVER.MAX_EPOCHS", 2)
    model = trainer.state.model
    model.idle = torch.nn.Linear(2, 2)
    model.idle.bias.requires_grad_(False)
    assert warnings_of(trainer, caplog) == [
        "warning: no gradient reached 1 trainable parameters after the first step: idle.weight, so they will not learn "
        "with this configuration."
    ]


@pytest.mark.parametrize("opts", [[], ["SOLVER.ACCUMULATE", 2], ["MODEL.SDTPS_BLOCK", 1]])
def test_where_everything_learns_no_parameter_is_named(tiny, caplog, opts):
    assert warnings_of(make_trainer(tiny, "SOLVER.MAX_EPOCHS", 2, *opts), caplog) == []
