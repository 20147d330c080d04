"""Checkpoints of the original code give its features, and one that does not fit names the key to change."""

import json
from functools import partial

import pytest
import torch

import test_net
from configs import get_cfg
from modeling import build_model
from modeling.demo_checkpoints import from_original
from tests.helpers.demo_checkpoints import forward, original_state
from tests.helpers.runs import run
from utils.errors import UserError

SIZE = ["INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
SDTPS = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.75]  # of 8 patches 4 are kept and make 3
HDM, ATM = ["MODEL.HDM", True], ["MODEL.ATM", True, "MODEL.HEAD", 4]
PIFE, SIE, APART = ["MODEL.GLOBAL_LOCAL", True], ["MODEL.SIE_CAMERA", True, "MODEL.SIE_COE", 1.0], ["MODEL.DIRECT", 0]
HEADS = {"r": "ori_RGB", "n": "ori_NI", "t": "ori_TI"}


def build(*opts, name="ViT-Test-CLIP"):
    cfg = get_cfg(None, ["MODEL.TRANSFORMER_TYPE", name, *SIZE, *opts])
    return partial(build_model, cfg, pretrained=False)


def load(content, *opts, **names):
    """Load the checkpoint into the model of a configuration, in evaluation mode."""
    content = from_original(content, "demo.pth", build(*opts, **names))
    model = build(*opts, **names)(num_classes=len(content["pids"]), num_cameras=content["num_cameras"])
    model.load_state_dict(content["model"])
    return model.eval()


def assert_equal_forward(model, state):
    torch.manual_seed(5)
    images, camera = torch.randn(4, 3, 3, 64, 32), torch.tensor([0, 1, 2, 0])
    expected = forward(state, images, camera)
    with torch.no_grad():
        found = model(images, camera)
    assert list(found.features) == [HEADS.get(name, name) for name in expected]
    for name, (feature, logits) in expected.items():
        name = HEADS.get(name, name)
        torch.testing.assert_close(found.features[name], feature, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.logits[name], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parts", "opts"),
    [
        ({}, []),
        ({"direct": False}, APART),
        ({"cameras": 3}, SIE),
        ({"pife": True, "direct": False}, [*PIFE, *APART]),
        ({"hdm": True}, HDM),
        ({"hdm": True, "head": 4}, [*HDM, *ATM]),
        ({"hdm": True, "head": 4, "pife": True, "cameras": 3}, [*HDM, *ATM, *PIFE, *SIE]),
        ({"sdtps": 3}, SDTPS),
        ({"sdtps": 3, "pife": True, "cameras": 3}, [*SDTPS, *PIFE, *SIE]),
        ({"sdtps": 3, "pife": True, "hdm": True, "head": 4, "direct": False, "cameras": 3},
         [*SDTPS, *PIFE, *HDM, *ATM, *APART, *SIE]),
    ],
)  # fmt: skip
def test_the_features_are_the_originals(parts, opts):
    torch.manual_seed(0)
    state = original_state(**parts)
    assert_equal_forward(load(state, *opts), state)


@pytest.mark.parametrize("camera_key", ["BACKBONE.base.sie_embed", "BACKBONE.sie_embed"])
@pytest.mark.parametrize("axes", [2, 3])
def test_an_imagenet_tower_adds_the_camera_to_every_token(camera_key, axes):
    torch.manual_seed(0)
    state = original_state(clip=False, cameras=3, pife=True, sdtps=3)
    file = dict(state)
    file[camera_key] = file.pop("BACKBONE.base.sie_embed").flatten(0, 3 - axes)
    file |= {"BACKBONE.base.fc.weight": torch.ones(9, 32), "BACKBONE.base.fc.bias": torch.ones(9)}
    assert_equal_forward(load(file, *SDTPS, *PIFE, *SIE, name="ViT-Test"), state)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_and_prefixes_are_understood(wrapper):
    torch.manual_seed(0)
    state = original_state(hdm=True)
    content = {f"module.{key}": value for key, value in state.items()}
    assert_equal_forward(load({wrapper: content, "epoch": 50} if wrapper else content, *HDM), state)


def test_checkpoints_of_this_framework_come_back_as_they_are():
    state = build()(num_classes=5, num_cameras=1).state_dict()
    for content in (state, {"model": state, "pids": [3, 5], "epoch": 1}):
        assert from_original(content, "best.pth", None) is content


def test_what_was_built_and_never_used_is_ignored_and_reported(caplog):
    torch.manual_seed(0)
    state, used = original_state(hdm=True, head=4, cameras=3), original_state(cameras=3)
    unused = {"steps": 7} | {key: value for key, value in state.items() if key.startswith("generalFusion.")}
    with caplog.at_level("INFO"):
        assert_equal_forward(load(used | unused, *SIE), used)
    assert f"demo.pth: {len(used)} tensors matched, {len(unused)} ignored: steps, generalFusion.r_token" in caplog.text
    assert "5 classes" in caplog.text


@pytest.mark.parametrize(
    ("parts", "opts"),
    [
        ({"pife": True, "hdm": True, "head": 4}, [*PIFE, *HDM, "MODEL.ATM", True]),
        ({"pife": True, "hdm": True, "head": 8, "direct": False},
         [*PIFE, *HDM, "MODEL.ATM", True, "MODEL.HEAD", 8, *APART]),
        ({"pife": True, "sdtps": 25}, [*PIFE, "MODEL.USE_SDTPS", True]),
    ],
)  # fmt: skip
def test_a_file_of_full_size_maps_completely(parts, opts, caplog):
    cfg = get_cfg(None, [*opts, *SIE])
    with torch.device("meta"), caplog.at_level("INFO"):
        state = original_state(width=768, out=512, depth=12, patches=128, classes=171, cameras=4, **parts)
        content = from_original(state, "demo.pth", partial(build_model, cfg, pretrained=False))
    assert (len(content["pids"]), content["num_cameras"]) == (171, 4)
    assert f"{len(state)} tensors matched, 0 ignored." in caplog.text

    def size(tensors):
        return sum(value.numel() for name, value in tensors.items() if not name.endswith("num_batches_tracked"))

    assert size(content["model"]) == size(state)


def without(state, part):
    return {key: value for key, value in state.items() if part not in key}


FULL = {"pife": True, "hdm": True, "head": 4, "cameras": 3}
CONFIG = [*PIFE, *HDM, *ATM, *SIE]


@pytest.mark.parametrize(
    ("parts", "opts", "message"),
    [
        (FULL, [*HDM, *ATM, *SIE], r"it has rgb_reduce\.0\.weight: set MODEL\.GLOBAL_LOCAL: True\.$"),
        (FULL, [*PIFE, *HDM, *SIE], r"it has generalFusion\.moe\.\S+: set MODEL\.ATM: True\.$"),
        (FULL, [*PIFE, *SIE], r"it has generalFusion\.r_token: set MODEL\.HDM: True; .* set MODEL\.ATM: True\.$"),
        (FULL, [*CONFIG, *APART], r"it has bottleneck\.weight: set MODEL\.DIRECT: True\.$"),
        (FULL, [*PIFE, *HDM, *ATM], r"it has backbone\.sie_embed: set MODEL\.SIE_CAMERA: True\.$"),
        ({}, [*PIFE, *SIE], r"MODEL\.SIE_CAMERA: False; .* set MODEL\.GLOBAL_LOCAL: False\.$"),
        ({"direct": False}, [], r"it has no bottleneck\.weight: set MODEL\.DIRECT: False\.$"),
        (FULL, [*CONFIG, *SDTPS], r"it has no bottleneck_sdtps\.weight: set MODEL\.USE_SDTPS: False\.$"),
        (FULL, [*CONFIG, "MODEL.HEAD", 2], r"Set MODEL\.HEAD: 4\.$"),
        (FULL, [*CONFIG, "MODEL.HEAD", 8], r"196 missing: generalFusion\.moe\.experts\.4\..*Set MODEL\.HEAD: 4\.$"),
        (FULL, [*CONFIG, *("INPUT.SIZE_TRAIN", [96, 32], "INPUT.SIZE_TEST", [96, 32])],
         r"pos_embed is \(1, 9, 32\) there and \(1, 13, 32\) here.*8 patches: set INPUT\.SIZE_TRAIN.*STRIDE_SIZE"),
        (FULL, [*CONFIG, "MODEL.STRIDE_SIZE", [8, 8]], r"on 8 patches: .*MODEL\.STRIDE_SIZE"),
        ({"depth": 3}, [], r"12 unexpected: backbone\.vit\.blocks\.2\..*Set MODEL\.TRANSFORMER_TYPE"),
        ({"out": 32}, [], r"of another shape: backbone\.proj\.weight.*Set MODEL\.TRANSFORMER_TYPE"),
        ({"clip": False}, [], r"missing: backbone\.proj\.weight.*Set MODEL\.TRANSFORMER_TYPE"),
        ({"sdtps": 2}, SDTPS, r"Set MODEL\.SDTPS_SPARSE_RATIO and MODEL\.SDTPS_AGGR_RATIO"),
        ({"sdtps": 3}, [*SDTPS, "MODEL.SDTPS_USE_PREDICTOR", False], r"Set MODEL\.SDTPS_USE_PREDICTOR"),
        ({"sdtps": 3}, [*SDTPS, "MODEL.SDTPS_BLOCK", 1], r"no reducers\.1\.\S+: set MODEL\.SDTPS_BLOCK: 0\.$"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_is_told_the_key(parts, opts, message):
    state = original_state(**parts)
    with pytest.raises(UserError, match=message):
        from_original(state, "demo.pth", build(*opts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, ".rt_token"), r"1 missing: generalFusion\.rt_token\)\. Take a file that is whole"),
        (lambda s: without(s, "2.expertHead.5.mlp.2.running_var"), r"\(1 missing: generalFusion\.moe\.experts\.2\."),
        (lambda s: without(s, "bottleneck_moe.running_mean"), r"\(1 missing: bottleneck_moe\.running_mean\)"),
        (lambda s: without(s, "ln_2"), r"\(4 missing: backbone\.vit\.blocks\.0\.norm2\.bias"),
        (lambda s: s | {"prompts.0": torch.ones(3)}, r"\(1 unexpected: prompts\.0\)\. Take a file .* of DeMo"),
        (lambda s: s | {"tir_reduce.1.bias": torch.ones(7)}, r"tir_reduce\.1\.bias is \(7,\) there and \(24,\) here"),
        (lambda s: s | {"classifier_moe.weight": torch.ones(6, 168)}, r"classifier\.weight is \(5, 72\) there"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_names_the_tensors(change, message):
    with pytest.raises(UserError, match=f"^demo.pth, a checkpoint of the original code.*{message}"):
        from_original(change(original_state(**FULL)), "demo.pth", build(*CONFIG))


def test_the_script_evaluates_one(tiny, tmp_path, capsys):
    """The model has the classes and cameras of the file, not those of the data (6 and 2)."""
    torch.manual_seed(0)
    torch.save(original_state(clip=False, classes=9, cameras=4, sdtps=3), tmp_path / "demo.pth")
    for source in (["--weights", str(tmp_path / "demo.pth")], ["TEST.WEIGHT", str(tmp_path / "demo.pth")]):
        assert run(test_net, "--config_file", tiny, *source, "MODEL.SIE_CAMERA", True) == 0
        assert "matched, 0 ignored. It is a checkpoint of the original code, of 9 classes" in capsys.readouterr().out
        row = json.loads((tmp_path / "out" / "test_results.json").read_text())["rows"][0]
        assert 0 < row["eval"]["sdtps"]["mAP"] <= 100
    assert run(test_net, "--config_file", tiny, "--weights", tmp_path / "demo.pth") == 2
    assert "demo.pth, a checkpoint of the original code" in capsys.readouterr().err
