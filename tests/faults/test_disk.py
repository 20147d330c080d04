"""If a disk is full or cannot be written, the run ends with one paragraph, and what was saved before is intact.

A limit on the size of files (RLIMIT_FSIZE) makes the operating system refuse a write as a full disk does, even to root;
a folder cannot be made where a file has its name.
"""

import contextlib
import errno
import json
import logging
import os
import resource

import pytest
import torch

from engine.checkpoint import Checkpoint
from engine.run_folder import METRICS, RunFolder
from utils.errors import UserError
from utils.logging import setup_logging


@contextlib.contextmanager
def file_limit(size):
    """Let no file of this process grow beyond `size` bytes, not even pytest's report, so keep the block short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def checkpoint(value):
    return Checkpoint(model={f"layer{i}": torch.full((64, 64), float(value)) for i in range(4)}, epoch=value)


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path, fraction):
    path = tmp_path / "last.pth"
    checkpoint(1).save(path)
    before = path.read_bytes()
    with pytest.raises(UserError) as error, file_limit(int(len(before) * fraction)):
        checkpoint(2).save(path, keep_as=tmp_path / "previous.pth")
    assert os.strerror(errno.EFBIG) in str(error.value) and str(path) in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"] and path.read_bytes() == before


@pytest.mark.parametrize("name", ["config.yaml", "results.json", METRICS])
def test_a_small_file_that_does_not_fit_leaves_the_old_one(tmp_path, name):
    folder = RunFolder(tmp_path / "out")
    folder.write_text(name, "old\n")
    with pytest.raises(UserError, match=rf"{name}: {os.strerror(errno.EFBIG)}.*intact"), file_limit(2000):
        folder.write_text(name, "new" * 1000)
    assert {p.name: p.read_text() for p in folder.path.iterdir()} == {name: "old\n"}


def test_a_line_of_metrics_that_does_not_fit_leaves_the_others(tmp_path):
    """The half line that is left is dropped when the run is resumed."""
    folder = RunFolder(tmp_path / "out")
    folder.append({"epoch": 1})
    with pytest.raises(UserError, match=rf"{METRICS}: {os.strerror(errno.EFBIG)}"), file_limit(100):
        folder.append({"epoch": 2, "losses": "x" * 200})
    assert list(folder.records()) == [{"epoch": 1}]


def test_a_log_that_does_not_fit_stops_no_run(capsys):
    setup_logging("/dev/full")
    logging.getLogger("test").info("on the screen all the same")
    captured = capsys.readouterr()
    assert "on the screen" in captured.out and not captured.err
    setup_logging()


def _limit(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def _limit_in_epoch(epoch, size):
    """In the child, let the disk be full from the first step of `epoch` (from 0) on."""
    from engine.train import Trainer

    step = Trainer.train_step

    def limited(trainer, batch):
        if trainer.state.epoch == epoch:
            _limit(size)
        return step(trainer, batch)

    Trainer.train_step = limited


@pytest.mark.slow
@pytest.mark.parametrize("size", [200, 4_000, 100_000])
def test_a_disk_that_fills_up_in_training_keeps_the_last_epoch(launch, small, tmp_path, size):
    """Whatever does not fit first (metrics, checkpoint), epoch 1 is kept and the run goes on from it."""
    out, argv = tmp_path / "out", ["--config_file", small]
    run = launch("train_net", *argv, before=(_limit_in_epoch, 1, size))
    run.is_refused(os.strerror(errno.EFBIG), str(out), "intact")
    assert torch.load(out / "last.pth", weights_only=True)["epoch"] == 1
    assert not list(out.glob(".*"))
    launch("train_net", *argv, "--resume", "auto").ends_well()
    assert [json.loads(line)["epoch"] for line in (out / METRICS).read_text().splitlines()] == [0, 1, 2]


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start_is_reported(launch, small, tmp_path):
    run = launch("train_net", "--config_file", small, before=(_limit, 0))
    run.is_refused(os.strerror(errno.EFBIG))
    assert not list(tmp_path.glob("out/.*")) and not list(tmp_path.glob("data/.decoded/*"))


@pytest.mark.parametrize("script", ["train_net", "test_net"])
@pytest.mark.parametrize("output", ["file", "file/below"])
def test_a_file_where_output_dir_should_be_is_refused(launch, small, tmp_path, script, output):
    """test_net.py refuses it as well, before an evaluation whose metrics could not be written."""
    (tmp_path / "file").write_text("mine")
    torch.save({}, tmp_path / "w.pth")
    weights = ["--weights", tmp_path / "w.pth"] if script == "test_net" else []
    run = launch(script, "--config_file", small, *weights, "OUTPUT_DIR", tmp_path / output)
    run.is_refused(f"OUTPUT_DIR {tmp_path / output} cannot be written to")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "data" / ".decoded").exists(), "nothing was decoded in vain"
