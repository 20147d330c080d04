"""Absent modalities at test: the table of one pass against separate runs, and what each mode means."""

import json
import re

import pytest
import torch

import test_net
import train_net
from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator
from engine.missing import SETTINGS, absent_modalities, parse_settings, title
from modeling import build_model
from tests.helpers.runs import run
from tests.helpers.trees import write_image, write_rgbnt201
from utils.errors import UserError


@pytest.fixture
def hard(tiny, tmp_path):
    """The tiny experiment on images whose colours tell nothing, so that settings differ in their metrics."""
    root = write_rgbnt201(tmp_path / "hard")
    for seed, path in enumerate(sorted(root.rglob("*.jpg"))):
        write_image(path, seed)
    tiny.write_text(re.sub(r"ROOT_DIR: [^}]*", f"ROOT_DIR: {root}", tiny.read_text()))
    return tiny


DEMO = ["MODEL.HDM", True, "MODEL.ATM", True, "MODEL.GLOBAL_LOCAL", True]


def make(config, *opts):
    """A random model in evaluation mode, with necks that have seen data, and its evaluator."""
    cfg = get_cfg(config, opts)
    data = build_data(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras).eval()
    for head in model.heads.values():
        head.neck.running_mean.normal_()
        head.neck.running_var.uniform_(0.5, 2)
    return model, build_evaluator(cfg, data.test, model, torch.device("cpu"))


def test_letters():
    assert [absent_modalities(setting) for setting in ("nothing", "r", "nt")] == [
        (False, False, False), (True, False, False), (False, True, True),
    ]  # fmt: skip
    assert title("rt") == "RGB+TI"
    assert parse_settings("all") == SETTINGS and parse_settings("none, R,nt,r") == ("nothing", "r", "nt")
    with pytest.raises(UserError, match=r"'x' is no setting. Allowed: all, or some of nothing, r,"):
        parse_settings("r,x")


@pytest.mark.parametrize("mode", ["zero", "drop"])
@pytest.mark.parametrize(
    "opts",
    [
        ["MODEL.SIE_CAMERA", True],
        [*DEMO, "MODEL.DIRECT", False, "TEST.NECK_FEAT", "after"],
        [*DEMO, "TEST.FLIP", True, "MODEL.SDTPS_BLOCK", 1],
    ],
    ids=["sdtps", "demo", "early"],
)
def test_one_pass_equals_separate_runs(hard, mode, opts):
    """Seven settings at once, and for each the model itself on images that are empty, or noise that it drops."""
    opts = [*opts, "MODEL.MISSING", mode]
    model, evaluator = make(hard, *opts)
    table = evaluator.score(model, SETTINGS)
    encoded = evaluator.encode(model, SETTINGS)
    scores = set()
    for setting in SETTINGS:
        separate, evaluate = make(hard, *opts, "TEST.MISS", setting)
        assert evaluate(separate) == table[setting]
        scores.add(table[setting]["eval"]["ori"]["mAP"])

        present = ~torch.tensor(absent_modalities(setting))
        descriptors = []
        for batch in evaluator.loader:
            images = evaluator.transform(batch.images, batch.present)
            instead = torch.randn_like(images) if mode == "drop" else torch.zeros_like(images)
            images = torch.where(present[:, None, None, None], images, instead)
            augmented = [images, images.flip(-1)] if evaluator.flip else [images]
            with torch.inference_mode():
                outputs = [model(i, batch.camera, present.expand(len(batch), 3)).descriptors for i in augmented]
            descriptors.append({name: sum(o[name] for o in outputs) / len(outputs) for name in outputs[0]})
        for name, found in encoded[setting].descriptors.items():
            torch.testing.assert_close(found, torch.cat([p[name] for p in descriptors]), rtol=1e-4, atol=1e-5)
    assert len(scores) > 4, "the settings differ"
    if mode == "drop":
        ori = encoded["rt"].descriptors["ori"].unflatten(1, (3, -1))
        assert not ori[:, [0, 2]].any() and ori[:, 1].any()


def test_the_table_of_the_script(hard, tmp_path, capsys):
    assert run(train_net, "--config_file", hard, "SOLVER.MAX_EPOCHS", 2) == 0
    assert run(test_net, "--config_file", hard, "--missing", "all") == 0
    rows = json.loads((tmp_path / "out" / "test_results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "nothing absent", "RGB absent", "NI absent", "TI absent", "RGB+NI absent", "RGB+TI absent", "NI+TI absent",
        "mean of those with any absent",
    ]  # fmt: skip
    maps = [row["eval"]["sdtps"]["mAP"] for row in rows]
    assert maps[-1] == pytest.approx(sum(maps[1:7]) / 6) and len(set(maps)) > 4
    assert "mean of those" in capsys.readouterr().out
    assert run(test_net, "--config_file", hard, "TEST.MISS", "rt") == 0
    assert json.loads((tmp_path / "out" / "test_results.json").read_text())["rows"][0]["eval"] == rows[5]["eval"]
    assert run(test_net, "--config_file", hard, "--missing", "rnt") == 2
    assert "'rnt' is no setting" in capsys.readouterr().err
