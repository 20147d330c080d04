"""A configuration becomes samples and loaders."""

import numpy as np
import pytest
import torch

from configs import get_cfg
from data.build import build_data, build_eval_loader, build_train_loader
from data.masks import load_masks
from tests.helpers.trees import write_manifest, write_msvr310
from utils.errors import UserError

CPU = torch.device("cpu")
SMALL_SYNTHETIC = [
    *("DATASETS.NAMES", "synthetic", "SYNTHETIC.TRAIN_IDS", 2, "SYNTHETIC.TEST_IDS", 2, "SYNTHETIC.TRAIN_IMAGES", 6),
    *("SYNTHETIC.TEST_IMAGES", 4, "SYNTHETIC.SIZE", [32, 16], "SYNTHETIC.DIFFICULTY", 0.0, "SYNTHETIC.SEED", 5),
]


def test_the_synthetic_section_decides_what_is_generated(tiny, tmp_path):
    data = build_data(get_cfg(tiny, [*SMALL_SYNTHETIC, "DATASETS.ROOT_DIR", tmp_path / "sets"]))
    (folder,) = (tmp_path / "sets").iterdir()
    assert folder.name.startswith("synthetic_2+2ids_6+4img_32x16_d0_s5_")
    assert len(data.train) == 6 and len(data.test.samples) == 4 and data.test.protocol == "camera"
    assert all(sample.mask.is_file() for sample in (*data.train, *data.test.samples))


@pytest.mark.parametrize("protocol", ["camera", "scene"])
def test_the_user_chooses_the_protocol_of_a_manifest(tiny, tmp_path, protocol):
    keys = ["DATASETS.NAMES", "manifest", "DATASETS.ROOT_DIR", write_manifest(tmp_path), "DATASETS.PROTOCOL", protocol]
    assert build_data(get_cfg(tiny, keys)).test.protocol == protocol


def test_other_data_sets_bring_their_own_protocol(tiny, tmp_path):
    keys = ["DATASETS.NAMES", "msvr310", "DATASETS.ROOT_DIR", write_msvr310(tmp_path)]
    assert build_data(get_cfg(tiny, keys)).test.protocol == "scene"


def test_an_unknown_data_set_is_refused(tiny):
    with pytest.raises(UserError, match=r"DATASETS\.NAMES.*RGBNT201.*synthetic"):
        build_data(get_cfg(tiny, ["DATASETS.NAMES", "Market1501"]))


def test_evaluation_keeps_the_order_of_the_split(tiny):
    cfg = get_cfg(tiny, ["TEST.IMS_PER_BATCH", 5])
    split = build_data(cfg).test
    batches = list(build_eval_loader(cfg, split, CPU))
    assert [len(batch) for batch in batches] == [5, 5, 5, 1]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(16))
    assert torch.cat([batch.pid for batch in batches]).tolist() == split.pids.tolist()


@pytest.mark.parametrize("cache", ["auto", "off", "device"])
def test_every_cache_gives_the_same_batches(tiny, tmp_path, cache):
    keys = ["DATALOADER.CACHE", cache] + (["DATALOADER.CACHE_DIR", tmp_path / "store"] if cache != "off" else [])
    cfg = get_cfg(tiny, keys)
    loader = build_train_loader(cfg, data := build_data(cfg), CPU)
    reference = build_train_loader(get_cfg(tiny, ["DATALOADER.CACHE", "off"]), data, CPU)
    for batch, expected in zip(loader, reference, strict=True):
        assert torch.equal(batch.images, expected.images) and torch.equal(batch.pid, expected.pid)
    assert (tmp_path / "store").is_dir() == (cache != "off")


def test_the_store_of_a_manifest_lies_beside_it(tiny, tmp_path):
    cfg = get_cfg(tiny, ["DATASETS.NAMES", "manifest", "DATASETS.ROOT_DIR", write_manifest(tmp_path / "own")])
    assert build_train_loader(cfg, build_data(cfg), CPU).dataset.store.path.parent == tmp_path / "own" / ".decoded"


@pytest.mark.parametrize(("cache", "workers"), [("auto", 0), ("auto", 1), ("device", 0)])
def test_masks_travel_with_the_images_when_asked_for(tiny, tmp_path, cache, workers):
    keys = [*SMALL_SYNTHETIC, "DATASETS.ROOT_DIR", tmp_path / "sets", "SOLVER.IMS_PER_BATCH", 4]
    cfg = get_cfg(tiny, [*keys, "DATALOADER.CACHE", cache, "DATALOADER.NUM_WORKERS", workers])
    data = build_data(cfg)
    for build, given, samples in (
        (build_train_loader, data, data.train),
        (build_eval_loader, data.test, data.test.samples),
    ):
        masks = load_masks(samples, tuple(cfg.INPUT.SIZE_TRAIN))
        for batch in build(cfg, given, CPU, with_masks=True):
            np.testing.assert_array_equal(batch.mask.numpy(), masks[batch.index.numpy()])
        assert all(batch.mask is None for batch in build(cfg, given, CPU))


def test_masks_that_a_data_set_does_not_have_are_refused_before_anything_is_decoded(tiny, tmp_path):
    cfg = get_cfg(tiny, ["DATALOADER.CACHE_DIR", tmp_path / "store"])
    with pytest.raises(UserError, match=r"needs the mask of the object.*another MODEL\.SDTPS_SCORE"):
        build_train_loader(cfg, build_data(cfg), CPU, with_masks=True)
    assert not (tmp_path / "store").exists()
