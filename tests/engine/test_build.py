"""What the builders read from the configuration."""

from pathlib import Path

import pytest
import torch

from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator, find_weights, load_model
from engine.checkpoint import Checkpoint
from modeling import build_model
from tests.helpers.runs import equal, make_trainer
from utils.errors import UserError


def test_which_weights_are_evaluated(tiny, tmp_path):
    cfg = get_cfg(tiny)
    assert find_weights(cfg) == tmp_path / "out" / "best.pth"
    cfg = get_cfg(tiny, ["TEST.WEIGHT", "w.pth"])
    assert (find_weights(cfg), find_weights(cfg, "given.pth")) == (Path("w.pth"), Path("given.pth"))


def test_a_checkpoint_and_its_bare_state_dict_give_the_same_model(tiny):
    cfg = get_cfg(tiny)
    data = build_data(cfg)
    state = build_model(cfg, num_classes=6, num_cameras=2).state_dict()
    for content in ({"model": state, "pids": data.train_pids, "num_cameras": 2}, state):
        assert equal(load_model(cfg, data, content, "w.pth").state_dict(), state)
    with pytest.raises(UserError, match=r"weights in w\.pth are not of this model \(1 missing"):
        load_model(cfg, data, {key: state[key] for key in list(state)[1:]}, "w.pth")


def test_the_classes_and_cameras_are_those_of_the_checkpoint(tiny):
    cfg = get_cfg(tiny, ["MODEL.SIE_CAMERA", True])
    state = build_model(cfg, num_classes=9, num_cameras=5).state_dict()
    content = {"model": state, "pids": list(range(9)), "num_cameras": 5}
    model = load_model(cfg, build_data(cfg), content, "w.pth")
    assert model.heads["ori"].classifier.out_features == 9 and model.backbone.num_cameras == 5


def test_the_evaluator_looks_for_masks_only_if_patches_are_selected(tiny, monkeypatch):
    monkeypatch.setattr("engine.build.patch_coverage", lambda samples, _grid: torch.zeros(len(samples), 8))
    for use_sdtps in (True, False):
        text = tiny.read_text()
        if not use_sdtps:
            tiny.write_text(text.replace("USE_SDTPS: True, SDTPS_AGGR_RATIO: 0.75, SDTPS_USE_GUMBEL: True, ", ""))
        cfg = get_cfg(tiny)
        data, model = build_data(cfg), build_model(cfg, num_classes=6, num_cameras=2)
        evaluator = build_evaluator(cfg, data.test, model, torch.device("cpu"))
        assert (evaluator.coverage is not None) == use_sdtps and evaluator.observers == ()


def test_a_trainer_and_its_evaluator_compute_in_one_precision(tiny):
    trainer = make_trainer(tiny, "SOLVER.AMP", "bf16")
    assert trainer.precision == trainer.evaluate.precision and trainer.device.type == "cpu"
    assert trainer.precision.dtype == torch.bfloat16
    checkpoint = Checkpoint(model={}, **trainer.options.metadata)
    assert (checkpoint.pids, checkpoint.num_cameras) == (list(range(1, 7)), 2)
