"""Checkpoints: what is saved is loaded, broken files lose nothing, and files of older versions load."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import test_net
import train_net
from configs import get_cfg
from data.build import build_data
from engine.build import load_model
from engine.checkpoint import Checkpoint, load_checkpoint, load_resumable
from engine.evaluate import as_percent
from engine.metrics import evaluate_ranking
from tests.helpers.runs import equal, fails, records, run, weights

OLD = Path(__file__).parent / "checkpoints_7edbc86"
EXPECTED = json.loads((OLD / "expected.json").read_text())
WHOLE = {
    "model": {"weight": torch.ones(2)}, "epoch": 3, "config": "A: 1\n", "pids": [4, 7], "num_cameras": 2, "step": 5,
    "optimizer": {"state": {}, "param_groups": []}, "optimizer_name": "Adam", "scaler": {}, "loss_sums": {"total": 1.5},
    "best": {"epoch": 2, "score": 50.0}, "diagnostics": {"sums": {}, "before": None},
}  # fmt: skip


def test_everything_that_is_saved_is_loaded(tmp_path):
    checkpoint = Checkpoint.from_content(WHOLE)
    assert checkpoint.observers == {"diagnostics": WHOLE["diagnostics"]}
    checkpoint.save(tmp_path / "last.pth")
    content = load_checkpoint(tmp_path / "last.pth")
    assert torch.equal(content.pop("model")["weight"], WHOLE["model"]["weight"])
    assert content == {key: value for key, value in WHOLE.items() if key != "model"}
    loaded = load_resumable(str(tmp_path / "last.pth"), tmp_path)
    assert (loaded.epoch, loaded.pids, loaded.observers) == (3, [4, 7], checkpoint.observers)
    assert loaded.path == tmp_path / "last.pth"


def test_the_best_one_holds_the_model_alone(tmp_path):
    names = ("model", "epoch", "config", "pids", "num_cameras")
    Checkpoint(**{name: WHOLE[name] for name in names}).save(tmp_path / "best.pth")
    assert tuple(sorted(load_checkpoint(tmp_path / "best.pth"))) == tuple(sorted(names))
    assert Checkpoint.load(tmp_path / "best.pth").optimizer is None


def test_a_bare_state_dict_is_the_model():
    state = {"weight": torch.ones(2)}
    assert Checkpoint.from_content(state).model is state


def test_later_checkpoints_have_a_larger_position():
    positions = [Checkpoint(model={}, epoch=e, step=s).position for e, s in ((0, 1), (0, 999), (1, 0), (1, 1), (2, 0))]
    assert positions == sorted(set(positions))


def test_the_optimiser_is_compared_by_its_name():
    optimizers = [kind([torch.nn.Parameter(torch.ones(1))], lr=1.0) for kind in (torch.optim.Adam, torch.optim.SGD)]
    named = Checkpoint(model={}, optimizer_name="AdamW", optimizer=optimizers[0].state_dict())
    assert not named.fits(optimizers[0]) and named.fits(torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]))
    for i, optimizer in enumerate(optimizers):  # older files do not name it
        unnamed = Checkpoint(model={}, optimizer=optimizer.state_dict())
        assert [unnamed.fits(other) for other in optimizers] == [i == 0, i == 1]


def test_another_optimiser_or_data_set_is_refused(tiny, tmp_path, capsys):
    assert run(train_net, "--config_file", tiny, "SOLVER.MAX_EPOCHS", 2) == 0
    argv = ["--config_file", tiny, "--resume", "auto"]
    assert "another SOLVER.OPTIMIZER_NAME" in fails(capsys, train_net, *argv, "SOLVER.OPTIMIZER_NAME", "AdamW")
    message = fails(capsys, train_net, *argv, "DATASETS.VAL_IDS", 2)
    assert f"{tmp_path / 'out' / 'last.pth'} was trained on other identities" in message


def test_a_broken_last_checkpoint_is_named_and_the_one_before_is_used(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(train_net, "--config_file", tiny) == 0
    expected = weights(out)
    (out / "last.pth").write_bytes((out / "last.pth").read_bytes()[:5000])
    capsys.readouterr()
    assert run(train_net, "--config_file", tiny, "--resume", "auto") == 0
    assert "last.pth is no readable checkpoint" in capsys.readouterr().out
    assert equal(weights(out), expected)
    for name in ("last.pth", "previous.pth"):
        (out / name).write_bytes(b"garbage")
    message = fails(capsys, train_net, "--config_file", tiny, "--resume", "auto")
    assert "no readable checkpoint in" in message


def test_a_full_disk_while_saving_loses_nothing(tiny, tmp_path, monkeypatch, capsys):
    out, save, saves = tmp_path / "out", torch.save, []

    def full_at_third(content, file):
        saves.append(1)
        if len(saves) == 3:  # best and last of epoch 1 are written
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full_at_third)
    message = fails(capsys, train_net, "--config_file", tiny)
    assert "No space left on device" in message and "intact" in message
    assert torch.load(out / "last.pth", weights_only=True)["epoch"] == 1
    assert not list(out.glob(".*.tmp"))


@pytest.fixture
def old(request, tmp_path, rgbnt201):
    """(name, YAML, folder of the run) of a checkpoint that commit 7edbc86 wrote after the first of two epochs."""
    config, out = EXPECTED[request.param]["config"], tmp_path / "out"
    path = tmp_path / "old.yml"
    path.write_text(
        json.dumps(config | {"OUTPUT_DIR": str(out), "DATASETS": config["DATASETS"] | {"ROOT_DIR": str(rgbnt201)}})
    )
    out.mkdir()
    shutil.copy(OLD / f"{request.param}.pth", out / "last.pth")
    return request.param, path, out


@pytest.mark.parametrize("old", EXPECTED, indirect=True)
def test_an_old_checkpoint_gives_its_descriptors_and_metrics(old):
    name, config, out = old
    cfg = get_cfg(config)
    model = load_model(cfg, build_data(cfg), load_checkpoint(out / "last.pth"), "last.pth").eval()
    images = torch.randn(20, 3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        descriptors = model(images, torch.zeros(20, dtype=torch.int64)).descriptors
    pid, group = torch.arange(20) % 5, torch.arange(20) // 10
    assert descriptors.keys() == EXPECTED[name]["descriptors"].keys()
    for key, rows in descriptors.items():
        expected = torch.tensor(EXPECTED[name]["descriptors"][key])
        torch.testing.assert_close(rows[:2, : expected.shape[1]], expected, rtol=1e-5, atol=1e-6)
        found = as_percent(evaluate_ranking(rows[:10], pid[:10], group[:10], rows, pid, group))
        assert found == pytest.approx(EXPECTED[name]["metrics"][key], abs=1e-6)


@pytest.mark.parametrize("old", EXPECTED, indirect=True)
def test_an_old_checkpoint_can_be_resumed_and_tested(old):
    """Up to rounding, the second epoch has the losses that commit 7edbc86 got in it."""
    name, config, out = old
    assert run(train_net, "--config_file", config, "--resume", "auto") == 0
    assert records(out)[-1]["losses"] == pytest.approx(EXPECTED[name]["losses of epoch 2"], rel=1e-3)
    assert run(test_net, "--config_file", config, "--weights", OLD / f"{name}.pth") == 0
