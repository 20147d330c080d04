"""Files of weights that are cut, garbled, foreign, malicious or full of nan are named and never executed."""

import functools
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from engine.checkpoint import Checkpoint, load_checkpoint, load_resumable
from modeling.backbone.pretrained import load_pretrained
from tests.helpers.backbone import make_backbone
from utils.errors import UserError

CONTENT = {
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"params": [0]}]},
    "scaler": {}, "epoch": 3, "step": 0, "loss_sums": {}, "best": {}, "config": "", "pids": [1], "num_cameras": 1,
}  # fmt: skip
FOREIGN_BYTES = {
    "empty": b"",
    "zeros": bytes(5000),
    "text": b"<html>404 not found</html>" * 40,
    "an image": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 10,
    "a zip of something else": None,
    "a pickle of a number": pickle.dumps(7),
    "half a pickle": pickle.dumps({"model": list(range(1000))})[:700],
}


class Touch:
    """This pickle makes a file when it is loaded without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Shell:
    """This pickle does the same by a command."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def read_as_checkpoint(path):
    load_checkpoint(path)


def read_as_resumable(path):
    load_resumable(str(path), path.parent)


@functools.cache
def backbone():
    return make_backbone("ViT-Test", img_size=(32, 32))


def read_as_pretrained(path):
    load_pretrained(backbone(), str(path))


READERS = [read_as_checkpoint, read_as_resumable, read_as_pretrained]


def refused(reader, path) -> str:
    """Return the paragraph with which `reader` refuses the file at `path`, and check that it names the file."""
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        reader(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) < 1000
    assert path.read_bytes() == before, "a file that cannot be read is left as it is"
    return message


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "last.pth"
    Checkpoint.from_content(CONTENT).save(path)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_cut_anywhere_is_refused(good, reader):
    """The file is cut at every 1/40 of its length, and one byte short of whole."""
    content = good.read_bytes()
    for length in {*range(0, len(content), len(content) // 40), len(content) - 1}:
        good.write_bytes(content[:length])
        refused(reader, good)


def test_one_bit_flipped_anywhere_is_noticed_or_harmless(good):
    """A flipped bit never gives other numbers; in padding and unused header fields it gives the same."""
    content, noticed = good.read_bytes(), 0
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        good.write_bytes(flipped)
        try:
            loaded = load_checkpoint(good)
        except UserError:
            noticed += 1
        else:
            assert torch.equal(loaded.pop("model")["weight"], CONTENT["model"]["weight"])
            state = loaded.pop("optimizer")["state"][0]["step"]
            assert state == 3 and loaded == {k: v for k, v in CONTENT.items() if k not in ("model", "optimizer")}
    assert noticed > 100


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FOREIGN_BYTES)
def test_foreign_files_are_refused(tmp_path, reader, kind):
    path = tmp_path / "last.pth"
    if (content := FOREIGN_BYTES[kind]) is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "nothing")
    else:
        path.write_bytes(content)
    refused(reader, path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("payload", [Touch, Shell])
@pytest.mark.parametrize("form", ["in a torch file", "beside weights", "bare pickle"])
def test_malicious_pickles_do_nothing(tmp_path, reader, payload, form):
    path, mark = tmp_path / "last.pth", tmp_path / "executed"
    evil = payload(mark)
    if form == "bare pickle":
        path.write_bytes(pickle.dumps({"model": evil}))
    else:
        torch.save(evil if form == "in a torch file" else CONTENT | {"extra": evil}, path)
    refused(reader, path)
    assert not mark.exists()
    with open(path, "rb") as file:  # the trap itself works: an unguarded load springs it
        pickle.load(file) if form == "bare pickle" else torch.load(file, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"model": 3},
        {"model": {"weight": 3}},
        {"epoch": 1, "step": "x"},
        {"state_dict": {1: torch.ones(1)}},
    ],
    ids=str,
)
def test_plain_data_that_is_not_a_checkpoint_is_refused(tmp_path, reader, content):
    path = tmp_path / "last.pth"
    torch.save(content, path)
    if reader is read_as_checkpoint and isinstance(content, dict):
        load_checkpoint(path)  # a dict: what it must hold depends on what it is for
    else:
        refused(reader, path)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_nan_is_neither_written_nor_read(good, broken):
    content, kept = CONTENT | {"model": {"weight": torch.full((2,), broken)}}, good.read_bytes()
    with pytest.raises(UserError, match=r"model\.weight holds nan or inf"):
        Checkpoint.from_content(content).save(good)
    assert good.read_bytes() == kept and len(list(good.parent.iterdir())) == 1
    moments = CONTENT | {"optimizer": {"state": {0: {"exp_avg": torch.tensor([broken])}}, "param_groups": []}}
    with pytest.raises(UserError, match=r"optimizer\.state\.0\.exp_avg holds nan or inf"):
        Checkpoint.from_content(moments).save(good)
    torch.save(content, good)
    assert "model.weight holds nan or inf" in refused(read_as_checkpoint, good)


@pytest.mark.parametrize("reader", READERS)
def test_a_list_that_holds_itself_is_refused(tmp_path, reader):
    path, knot = tmp_path / "last.pth", []
    knot.append(knot)
    torch.save({"model": knot}, path)
    refused(reader, path)


def test_nan_in_pretrained_weights_is_named(tmp_path):
    state = {key.removeprefix("vit."): value.clone() for key, value in backbone().state_dict().items()}
    state["blocks.1.norm1.weight"][3] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    assert "blocks.1.norm1.weight" in refused(read_as_pretrained, tmp_path / "w.pth")


@pytest.fixture
def trained(launch, small, tmp_path):
    """Train for two epochs and return the folder of the run."""
    launch("train_net", "--config_file", small).ends_well()
    return tmp_path / "out"


@pytest.mark.slow
def test_a_broken_last_checkpoint_never_replaces_the_good_one(launch, small, trained):
    """The broken one is put aside; a run that is killed in its next save leaves the good one where it was."""
    good = (trained / "previous.pth").read_bytes()
    (trained / "last.pth").write_bytes(b"broken")
    argv = ["--config_file", small, "--resume", "auto"]
    run = launch("train_net", *argv, before=(_die_before_the_last_rename,))
    assert run.wait() == -9
    assert "last.pth is no readable checkpoint" in run.text()
    assert (trained / "last.pth.broken").read_bytes() == b"broken"
    assert (trained / "previous.pth").read_bytes() == good
    launch("train_net", *argv).ends_well()
    assert torch.load(trained / "last.pth", weights_only=True)["epoch"] == 2


def _die_before_the_last_rename():
    replace = os.replace

    def dying(source, target):
        if Path(source).name == ".last.pth.tmp":
            os.kill(os.getpid(), 9)
        replace(source, target)

    os.replace = dying


@pytest.mark.slow
def test_the_scripts_refuse_in_one_paragraph_and_lose_nothing(launch, small, trained, tmp_path):
    good, best = (trained / "last.pth").read_bytes(), (trained / "best.pth").read_bytes()
    bad, mark = tmp_path / "bad.pth", tmp_path / "executed"
    torch.save(Touch(mark), bad)
    runs = [
        launch("train_net", "--config_file", small, "--resume", bad),
        launch("test_net", "--config_file", small, "--weights", bad),
        launch("train_net", "--config_file", small, "MODEL.PRETRAIN_PATH_T", bad, "OUTPUT_DIR", tmp_path / "other"),
        launch("train_net", "--config_file", small, "--resume", "auto", "SOLVER.OPTIMIZER_NAME", "SGD"),
        launch("train_net", "--config_file", small, "--resume", trained / "best.pth"),
    ]
    for run, fragment in zip(runs, [*[str(bad)] * 3, "SOLVER.OPTIMIZER_NAME", "cannot be resumed"], strict=True):
        run.is_refused(fragment)
    assert not mark.exists()
    assert (trained / "last.pth").read_bytes() == good and (trained / "best.pth").read_bytes() == best


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 3])
def test_a_run_goes_on_in_another_folder_without_the_metrics_of_the_first(launch, small, trained, tmp_path, epochs):
    argv = ["--config_file", small, "--resume", trained / "last.pth", "OUTPUT_DIR", tmp_path / "other"]
    run = launch("train_net", *argv, "SOLVER.MAX_EPOCHS", epochs)
    run.ends_well()
    assert f"last (epoch {epochs})" in run.text()
    assert (tmp_path / "other" / "best.pth").exists() == (epochs == 3)


@pytest.mark.slow
def test_resuming_without_metrics_scores_again(launch, small, trained):
    shutil.move(trained / "metrics.jsonl", trained / "lost")
    run = launch("train_net", "--config_file", small, "--resume", "auto")
    run.ends_well()
    assert "last (epoch 2)" in run.text() and "best (epoch" in run.text()


@pytest.mark.slow
def test_the_configurations_decay_holds_after_a_resume(launch, small, trained):
    """Adam's state dict would silently have restored the former settings."""
    argv = ["--config_file", small, "--resume", "auto", "SOLVER.MAX_EPOCHS", 3, "SOLVER.WEIGHT_DECAY", 0.25]
    launch("train_net", *argv).ends_well()
    groups = torch.load(trained / "last.pth", weights_only=True)["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups if group["name"] != "bias"} == {0.25}
