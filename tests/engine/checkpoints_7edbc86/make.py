"""Write the checkpoints of this folder and what they must give. Run it in a checkout of commit 7edbc86:

python PATH_TO_THIS_FILE/make.py
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [os.getcwd(), str(Path.cwd() / "tests")]

import torch  # noqa: E402
from helpers_runs import records, run  # noqa: E402
from helpers_trees import write_rgbnt201  # noqa: E402

import train_net  # noqa: E402
from configs import get_cfg  # noqa: E402
from engine.evaluate import as_percent  # noqa: E402
from engine.metrics import evaluate_ranking  # noqa: E402
from modeling import build_model  # noqa: E402

COMMON = {
    "INPUT": {"SIZE_TRAIN": [64, 32], "SIZE_TEST": [64, 32]},
    "DATASETS": {"NAMES": "RGBNT201", "ROOT_DIR": "data"},
    "DATALOADER": {"NUM_WORKERS": 0, "NUM_INSTANCE": 2},
    "OUTPUT_DIR": "out",
}
SOLVER = {"MAX_EPOCHS": 2, "WARMUP_EPOCHS": 1, "IMS_PER_BATCH": 4, "BACKBONE_LR": 0.001, "BASE_LR": 0.001}
SDTPS = {"TRANSFORMER_TYPE": "ViT-Test", "USE_SDTPS": True, "SDTPS_AGGR_RATIO": 0.75}
DEMO = {"TRANSFORMER_TYPE": "ViT-Test-CLIP", "HDM": True, "ATM": True, "GLOBAL_LOCAL": True}
VARIANTS = {
    "sdtps": {
        "MODEL": SDTPS | {"SDTPS_USE_GUMBEL": True, "FREEZE_BLOCKS": 2},
        "SOLVER": SOLVER | {"OPTIMIZER_NAME": "Adam"},
    },
    "sdtps_block_1": {
        "MODEL": SDTPS | {"SDTPS_BLOCK": 1, "FREEZE_BLOCKS": 1},
        "SOLVER": SOLVER | {"OPTIMIZER_NAME": "SGD"},
    },
    "demo": {"MODEL": DEMO, "SOLVER": SOLVER | {"OPTIMIZER_NAME": "SGD", "MOMENTUM": 0.0}},
}


def main() -> None:
    expected = {}
    os.chdir(tempfile.mkdtemp())
    write_rgbnt201(Path("data"))
    for name, keys in VARIANTS.items():
        config, out = Path(f"{name}.yml"), Path("out")
        config.write_text(json.dumps(keys | COMMON))
        shutil.rmtree(out, ignore_errors=True)
        assert run(train_net, "--config_file", config) == 0
        shutil.copy(out / "previous.pth", HERE / f"{name}.pth")  # after the first of two epochs

        cfg = get_cfg(config)
        model = build_model(cfg, num_classes=6, num_cameras=2, pretrained=False).eval()
        model.load_state_dict(torch.load(HERE / f"{name}.pth", weights_only=True)["model"])
        images = torch.randn(20, 3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            descriptors = model(images, torch.zeros(20, dtype=torch.int64)).patterns
        pid, group = torch.arange(20) % 5, torch.arange(20) // 10
        rows = {key: (rows[:10], pid[:10], group[:10], rows, pid, group) for key, rows in descriptors.items()}
        expected[name] = {
            "config": keys | COMMON,
            "descriptors": {key: _numbers(key, rows) for key, rows in descriptors.items()},
            "metrics": {key: as_percent(evaluate_ranking(*arguments)) for key, arguments in rows.items()},
            "losses of epoch 2": records(out)[2]["losses"],
        }
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")


def _numbers(name: str, rows: torch.Tensor) -> list[list[float]]:
    """The first eight numbers of two samples; all of them for the branch whose channels change their order later."""
    return rows[:2, : None if name == "moe" else 8].double().numpy().round(8).tolist()


main()
