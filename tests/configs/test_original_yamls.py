"""YAMLs written for the original code, and for the public SDTPS adaptation, load as they are."""

import warnings

import pytest

from configs import get_cfg

PERSONS = """
MODEL:
  TRANSFORMER_TYPE: 'ViT-B-16'
  STRIDE_SIZE: [ 16, 16 ]
  SIE_CAMERA: True
  SIE_COE: 1.0
  DIRECT: 1
  ID_LOSS_WEIGHT: 0.25
  TRIPLET_LOSS_WEIGHT: 1.0
  GLOBAL_LOCAL: True
  HDM: True
  ATM: True
  HEAD: 4
INPUT:
  SIZE_TRAIN: [ 256, 128 ]
  SIZE_TEST: [ 256, 128 ]
  PROB: 0.5
  RE_PROB: 0.5
  PADDING: 10
DATALOADER:
  SAMPLER: 'softmax_triplet'
  NUM_INSTANCE: 8
  NUM_WORKERS: 14
DATASETS:
  NAMES: ('RGBNT201')
  ROOT_DIR: '../data'
SOLVER:
  BASE_LR: 0.00035
  WARMUP_ITERS: 10
  MAX_EPOCHS: 50
  OPTIMIZER_NAME: 'Adam'
  IMS_PER_BATCH: 64
  EVAL_PERIOD: 1
  STEPS: [40, 70]
  GAMMA: 0.1
TEST:
  IMS_PER_BATCH: 128
  RE_RANKING: 'no'
  WEIGHT: ''
  NECK_FEAT: 'before'
  FEAT_NORM: 'yes'
  MISS: "nothing"
OUTPUT_DIR: '../out'
"""
VEHICLES = (
    PERSONS.replace("DIRECT: 1", "DIRECT: 0")
    .replace("HEAD: 4", "HEAD: 8")
    .replace("SIZE_TRAIN: [ 256, 128 ]", "SIZE_TRAIN: [ 128, 256 ]")
    .replace("SIZE_TEST: [ 256, 128 ]", "SIZE_TEST: [ 128, 256 ]")
)
SDTPS = """  USE_SDTPS: True
  SDTPS_SPARSE_RATIO: 0.5
  SDTPS_AGGR_RATIO: 0.4
  SDTPS_BETA: 0.25
  SDTPS_USE_GUMBEL: False
  SDTPS_LOSS_WEIGHT: 1.0
INPUT:"""
YAMLS = {
    "RGBNT201": PERSONS,
    "RGBNT100": VEHICLES.replace("RGBNT201", "RGBNT100").replace("NUM_INSTANCE: 8", "NUM_INSTANCE: 16")
    .replace("IMS_PER_BATCH: 64", "IMS_PER_BATCH: 128").replace("MAX_EPOCHS: 50", "MAX_EPOCHS: 30")
    .replace("WARMUP_ITERS: 10", "WARMUP_ITERS: 5"),
    "MSVR310": VEHICLES.replace("RGBNT201", "MSVR310").replace("NUM_INSTANCE: 8", "NUM_INSTANCE: 4")
    .replace('MISS: "nothing"', "MISS: None"),
    "SDTPS": PERSONS.replace("HDM: True", "HDM: False").replace("ATM: True", "ATM: False").replace("INPUT:", SDTPS),
    "SDTPS, vehicles": VEHICLES.replace("HDM: True", "HDM: 'no'").replace("ATM: True", "ATM: 'no'")
    .replace("INPUT:", SDTPS),
}  # fmt: skip


@pytest.mark.parametrize("name", YAMLS)
def test_they_load_unchanged(name, tmp_path):
    path = tmp_path / "original.yml"
    path.write_text(YAMLS[name])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cfg = get_cfg(path)
    said = [str(warning.message) for warning in caught]
    expected = ["SOLVER.STEPS has no effect", "SOLVER.GAMMA has no effect"]
    if name == "SDTPS, vehicles":
        expected.append("MODEL.HEAD is 8, but it would have no effect")
    assert len(said) == len(expected) and all(any(text in line for line in said) for text in expected)

    sdtps = name.startswith("SDTPS")
    assert (not sdtps, not sdtps, sdtps) == (cfg.MODEL.HDM, cfg.MODEL.ATM, cfg.MODEL.USE_SDTPS)
    assert cfg.MODEL.DIRECT is ("vehicles" not in name and name not in ("RGBNT100", "MSVR310"))
    assert (5 if name == "RGBNT100" else 10) == cfg.SOLVER.WARMUP_EPOCHS
    assert (cfg.TEST.MISS, cfg.TEST.RE_RANKING, cfg.TEST.FEAT_NORM) == ("nothing", False, True)
    assert name.split(",")[0].replace("SDTPS", "RGBNT201") == cfg.DATASETS.NAMES
