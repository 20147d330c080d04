"""Whole runs of the two scripts: they write what they should, repeat, resume, and refuse bad input."""

import json
import re
import shutil

import pytest
import torch

import test_net
import train_net
from tests.helpers.runs import equal, fails, records, run, weights


def test_a_run_writes_what_it_should_and_is_repeatable(tiny, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    assert run(train_net, "--config_file", tiny) == 0
    printed = capsys.readouterr().out
    assert "untrained (epoch 0)" in printed and "chosen on the test set" in printed
    assert {p.name for p in out.iterdir()} >= {
        "config.yaml", "log.txt", "metrics.jsonl", "last.pth", "best.pth", "results.json",
    }  # fmt: skip
    lines = records(out)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[1]["losses"]) == {"total", "id/ori", "triplet/ori", "id/sdtps", "triplet/sdtps"}
    assert lines[1]["losses"]["total"] == pytest.approx(sum(v for k, v in lines[1]["losses"].items() if k != "total"))
    assert set(lines[3]["eval"]["sdtps"]) >= {"mAP", "R1", "R5", "R10", "mINP"}
    results = json.loads((out / "results.json").read_text())
    assert [row["name"].split()[0] for row in results["rows"]] == ["untrained", "last", "best"]
    assert [row["epoch"] for row in results["rows"]][:2] == [0, 3] and results["headline"] == "sdtps"

    assert run(train_net, "--config_file", tiny, "OUTPUT_DIR", again) == 0
    assert records(again) == lines and equal(weights(again), weights(out))
    other = ["SOLVER.SEED", 7, "OUTPUT_DIR", tmp_path / "b"]
    assert run(train_net, "--config_file", tiny, *other) == 0
    assert records(tmp_path / "b") != lines

    assert run(test_net, "--config_file", tiny) == 0
    tested = json.loads((out / "test_results.json").read_text())["rows"][0]
    assert tested["eval"] == results["rows"][2]["eval"], "test_net.py repeats the metrics of best.pth"


def test_an_earlier_run_is_set_aside(tiny, tmp_path):
    for _ in range(2):
        assert run(train_net, "--config_file", tiny, "SOLVER.MAX_EPOCHS", 2) == 0
    assert equal(weights(tmp_path / "out" / "earlier-1"), weights(tmp_path / "out"))


def test_a_finished_run_can_be_extended_and_resumed_between_epochs(tiny, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    long = ["SOLVER.MIN_LR_FACTOR", 1]  # a schedule that does not depend on its length
    for epochs, folder in ((4, whole), (2, parts), (4, parts)):
        argv = ["--config_file", tiny, "--resume", "auto", "SOLVER.MAX_EPOCHS", epochs, "OUTPUT_DIR", folder, *long]
        assert run(train_net, *argv) == 0
    assert records(parts) == records(whole) and equal(weights(parts), weights(whole))


def test_a_finished_run_can_be_resumed_elsewhere(tiny, tmp_path):
    """With nothing left to train, its last checkpoint is scored."""
    assert run(train_net, "--config_file", tiny) == 0
    whole, other = tmp_path / "out", tmp_path / "other"
    argv = ["--config_file", tiny, "--resume", whole / "last.pth", "OUTPUT_DIR", other]
    assert run(train_net, *argv) == 0
    results = json.loads((other / "results.json").read_text())
    assert [row["eval"] for row in results["rows"]] == [records(whole)[3]["eval"]]
    assert results["samples_per_s"] is None


def test_a_run_resumed_elsewhere_sets_aside_the_run_found_there(tiny, tmp_path):
    """Otherwise its table would show the metrics of the other run for the epochs before."""
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, folder in ((1, first), (2, second)):
        options = ["SOLVER.SEED", seed, "OUTPUT_DIR", folder]
        assert run(train_net, "--config_file", tiny, *options) == 0
    found, kept = records(second), weights(second)
    longer = ["--resume", first / "last.pth", "SOLVER.SEED", 1, "SOLVER.MAX_EPOCHS", 4, "OUTPUT_DIR", second]
    assert run(train_net, "--config_file", tiny, *longer) == 0
    assert [record["epoch"] for record in records(second)] == [4]
    assert records(second / "earlier-1") == found and equal(weights(second / "earlier-1"), kept)


def test_validation_identities_choose_best_and_the_test_set_scores_it(tiny, tmp_path, capsys):
    assert run(train_net, "--config_file", tiny, "DATASETS.VAL_IDS", 2) == 0
    assert "chosen on the validation set" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["split"] for row in results["rows"]] == ["validation", "test", "test"]


def test_training_improves_the_loss(tiny, tmp_path):
    argv = ["SOLVER.MAX_EPOCHS", 12, "SOLVER.BASE_LR", 0.003, "INPUT.RE_PROB", 0]
    assert run(train_net, "--config_file", tiny, *argv) == 0
    losses = [line["losses"]["id/sdtps"] for line in records(tmp_path / "out")[1:]]
    assert losses[-1] < 0.7 * losses[0]


def test_gradient_clipping_accumulates_nothing_and_bf16_trains(tiny, tmp_path):
    argv = ["SOLVER.AMP", "bf16", "SOLVER.CLIP_GRAD_NORM", 1.0, "SOLVER.MAX_EPOCHS", 2]
    assert run(train_net, "--config_file", tiny, *argv) == 0
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "out").values())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["DATASETS.ROOT_DIR", "nowhere"], "DATASETS.ROOT_DIR.*needs no download"),
        (["MODEL.PRETRAIN_PATH_T", "nowhere.pt"], "MODEL.PRETRAIN_PATH_T is nowhere.pt.*openai/CLIP"),
        (["SOLVER.IMS_PER_BATCH", 64], "needs 32 identities in a batch, but there are 6"),
        (["--resume", "nowhere.pth"], "There is no checkpoint nowhere.pth"),
        (["MODEL.TRANSFORMER_TYPE", "vit_tiny_patch16_225"], "Near names: vit_tiny_patch16_224"),
        (["INPUT.SIZE_TRAIN", "[60, 32]", "INPUT.SIZE_TEST", "[8, 32]"], "must be equal"),
        (["OUTPUT_DIR", "/proc/nowhere"], "OUTPUT_DIR /proc/nowhere cannot be written"),
        (["MODEL.DEVICE", "cuda:99"], "sees . CUDA devices"),
    ],
)
def test_bad_input_is_one_paragraph(tiny, capsys, argv, message):
    position = 2 if argv[0].startswith("--") else 0
    argv = argv if position else ["--resume", "", *argv]
    assert re.search(message, fails(capsys, train_net, "--config_file", tiny, *argv))


def test_weights_of_another_model_are_refused(tiny, tmp_path, capsys):
    assert run(train_net, "--config_file", tiny, "SOLVER.MAX_EPOCHS", 2) == 0
    other = ["--config_file", tiny, "MODEL.SDTPS_USE_GUMBEL", False, "MODEL.SDTPS_USE_PREDICTOR", False]
    assert "unexpected: branches.sdtps.selection.score.predictor" in fails(capsys, test_net, *other)
    argv = ["--config_file", tiny, "--weights", tmp_path / "none.pth"]
    assert "There is no checkpoint" in fails(capsys, test_net, *argv)


def test_a_camera_that_sie_never_saw_is_named(tiny, tmp_path, rgbnt201, capsys):
    root = tmp_path / "data"
    shutil.copytree(rgbnt201, root)
    for path in sorted(root.glob("RGBNT201/test/*/*cam2*")):
        path.rename(path.with_name(path.name.replace("cam2", "cam9")))
    argv = ["--config_file", tiny, "DATASETS.ROOT_DIR", root, "MODEL.SIE_CAMERA", True]
    message = fails(capsys, train_net, *argv)
    assert "camera 9" in message and "MODEL.SIE_CAMERA: False" in message
    image = next(root.glob("RGBNT201/test/NI/*"))
    image.write_bytes(image.read_bytes()[:200])
    message = fails(capsys, train_net, "--config_file", tiny, "DATASETS.ROOT_DIR", root)
    assert str(image) in message
    image.unlink()
    message = fails(capsys, train_net, "--config_file", tiny, "DATASETS.ROOT_DIR", root)
    assert image.name in message and "not in NI" in message
