"""Every experiment that comes with the framework, made tiny, trains and evaluates on its data in its true layout."""

import json
from pathlib import Path

import pytest

import train_net
from configs import get_cfg
from tests.helpers.runs import run
from tests.helpers.trees import WRITERS, write_manifest

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "MODEL.TRANSFORMER_TYPE": "ViT-Test-CLIP",
    "MODEL.PRETRAIN_PATH_T": "",
    "SOLVER.IMS_PER_BATCH": 4,
    "DATALOADER.NUM_INSTANCE": 2,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.MAX_EPOCHS": 2,
    "SOLVER.WARMUP_EPOCHS": 1,
}
EXPERIMENTS = sorted(path for name in WRITERS for path in (CONFIGS / name).glob("*.yml"))


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """ROOT_DIR of every data set."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


def train(config, out, **keys):
    """The last row of the results of a tiny run of `config`."""
    words = [word for pair in (SMALL | keys | {"OUTPUT_DIR": out}).items() for word in pair]
    assert run(train_net, "--config_file", config, *words) == 0
    return json.loads((out / "results.json").read_text())["rows"][-1]["eval"]


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_experiment(config, roots, tmp_path):
    name = config.parent.name
    size = [64, 32] if name == "RGBNT201" else [32, 64]
    keys = {"DATASETS.ROOT_DIR": roots[name], "INPUT.SIZE_TRAIN": size, "INPUT.SIZE_TEST": size}
    if get_cfg(config).MODEL.SDTPS_BLOCK:
        keys["MODEL.SDTPS_BLOCK"] = 1  # of the two blocks of the small backbone
    metrics = train(config, tmp_path / "out", **keys)
    branches = {"DeMo": "moe", "DeMo_original": "moe", "Baseline": "ori"}
    assert branches.get(config.stem, "sdtps") in metrics
    assert all(0 < descriptor["mAP"] <= 100 for descriptor in metrics.values())


@pytest.mark.parametrize("mode", ["zero", "drop"])
@pytest.mark.parametrize("absent", [(), ("NI",), ("NI", "TI")], ids=["three", "two", "one"])
def test_a_manifest_of_three_two_or_one_modalities(absent, mode, tmp_path):
    keys = {
        "DATASETS.NAMES": "manifest",
        "DATASETS.ROOT_DIR": write_manifest(tmp_path / "own", absent=absent),
        "DATASETS.PROTOCOL": "scene",
        "INPUT.SIZE_TRAIN": [64, 32],
        "INPUT.SIZE_TEST": [64, 32],
        "INPUT.MODALITY_DROPOUT": 0.3,
        "MODEL.MISSING": mode,
        "MODEL.DIRECT": False,
        "MODEL.HDM": True,
        "MODEL.ATM": True,
    }
    metrics = train(CONFIGS / "RGBNT201" / "DeMo_SDTPS.yml", tmp_path / "out", **keys)
    assert set(metrics) == {"ori", "moe", "sdtps", "all"}
    assert (tmp_path / "own" / ".decoded").is_dir()
