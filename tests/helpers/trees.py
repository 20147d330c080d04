"""Write miniature data sets in their true layouts, for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.sample import MODALITIES


def write_image(path: Path, seed: int, size_hw=(64, 32), colour=None) -> Path:
    """Write a JPEG of noise around a colour that is a function of `seed`."""
    rng = np.random.default_rng(seed)
    base = np.array(colour if colour is not None else rng.integers(40, 216, 3))
    pixels = np.clip(base + rng.normal(0, 12, (*size_hw, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_rgbnt201(root: Path, *, train_ids=6, test_ids=4, images_per_id=4, size_hw=(64, 32)) -> Path:
    """Write RGBNT201/{train_171,test}/{RGB,NI,TI}; two cameras see every identity, which has a colour per modality."""
    for split, first, count in (("train_171", 1, train_ids), ("test", 500, test_ids)):
        for pid in range(first, first + count):
            for i in range(images_per_id):
                name = f"{pid:06d}_cam{i % 2 + 1}_0_{i:02d}.jpg"
                for m, modality in enumerate(MODALITIES):
                    colour = np.random.default_rng((pid, m)).integers(40, 216, 3)
                    write_image(root / "RGBNT201" / split / modality / name, pid * 100 + i, size_hw, colour)
    return root


def write_rgbnt100(root: Path, *, train_ids=4, test_ids=3, images_per_id=4, tile_hw=(32, 64)) -> Path:
    """Write RGBNT100/rgbir/{bounding_box_train,query,bounding_box_test}: three tiles of different colours in a JPEG.

    The first image of every test identity is also a query.
    """
    for split, first, count in (("bounding_box_train", 1, train_ids), ("bounding_box_test", 500, test_ids)):
        for pid in range(first, first + count):
            for i in range(images_per_id):
                name = f"{pid:04d}_c{i % 2 + 1:04d}_{i:03d}.jpg"
                for folder in (split, "query") if split == "bounding_box_test" and i == 0 else (split,):
                    _write_tiles(root / "RGBNT100" / "rgbir" / folder / name, pid, tile_hw)
    return root


def _write_tiles(path: Path, pid: int, tile_hw: tuple[int, int]) -> None:
    colours = [np.random.default_rng((pid, m)).integers(40, 216, 3) for m in range(len(MODALITIES))]
    tiles = [np.broadcast_to(colour.astype(np.uint8), (*tile_hw, 3)) for colour in colours]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(tiles, axis=1)).save(path, quality=95)


def write_id_folders(root: Path, splits: dict[str, range], name: str, *, images_per_id=4, size_hw=(32, 64)) -> Path:
    """Write root/<split>/<id>/{vis,ni,th}/<name>, the layout of MSVR310 and WMVeID863.

    Args:
        splits: identities by folder of the split.
        name: format of the file names in `pid`, `i` (number of the image) and `viewpoint` (0 and 1 in turns).
    """
    for split, pids in splits.items():
        for pid in pids:
            for i in range(images_per_id):
                for m, folder in enumerate(("vis", "ni", "th")):
                    path = root / split / f"{pid:04d}" / folder / name.format(pid=pid, i=i, viewpoint=i % 2)
                    colour = np.random.default_rng((pid, m)).integers(40, 216, 3)
                    write_image(path, pid * 100 + i, size_hw, colour)
    return root


def write_msvr310(root: Path, *, train_ids=4, test_ids=3, images_per_id=4, size_hw=(32, 64)) -> Path:
    """Write MSVR310/{bounding_box_train,query3,bounding_box_test}: every identity in two scenes and viewpoints."""
    train, test = range(1, 1 + train_ids), range(500, 500 + test_ids)
    splits = {"bounding_box_train": train, "bounding_box_test": test, "query3": test}
    name = "{pid:04d}_s00{viewpoint}_v{viewpoint}_{i:03d}.jpg"
    write_id_folders(root / "MSVR310", splits, name, images_per_id=images_per_id, size_hw=size_hw)
    return root


def write_wmveid863(root: Path, *, train_ids=4, test_ids=3, images_per_id=4, size_hw=(32, 64)) -> Path:
    """Write WMVEID863/{train,query,test}: every identity in two cameras, by day."""
    train, test = range(1, 1 + train_ids), range(500, 500 + test_ids)
    name = "{pid:04d}_v{viewpoint}_n0_{i:03d}.jpg"
    splits = {"train": train, "query": test, "test": test}
    write_id_folders(root / "WMVEID863", splits, name, images_per_id=images_per_id, size_hw=size_hw)
    return root


def write_manifest(root: Path, *, train_ids=4, test_ids=3, images_per_id=4, size_hw=(64, 32), absent=()) -> Path:
    """Write root/manifest.csv and its images, and return its path; `absent` modalities have empty paths."""
    lines = ["split,id,camera,scene,rgb,ni,ti"]
    train, test = range(1, 1 + train_ids), range(500, 500 + test_ids)
    for split, pids in (("train", train), ("query", test), ("gallery", test)):
        for pid in pids:
            for i in range(images_per_id):
                names = ["" if m in absent else f"{m}/{split}_{pid}_{i}.jpg" for m in MODALITIES]
                for m, name in enumerate(names):
                    if name:
                        colour = np.random.default_rng((pid, m)).integers(40, 216, 3)
                        write_image(root / name, pid * 100 + i, size_hw, colour)
                lines.append(f"{split},{pid},{i % 2},{i % 2},{','.join(names)}")
    path = root / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


WRITERS = {
    "RGBNT201": write_rgbnt201,
    "RGBNT100": write_rgbnt100,
    "MSVR310": write_msvr310,
    "WMVeID863": write_wmveid863,
}
"""Maps each data set in folders to its writer; the tests of all of them run over these."""


def write_tiny(folder: Path, root: Path) -> Path:
    """Write a YAML of a tiny experiment on the RGBNT201 in `root`; its OUTPUT_DIR is folder/out."""
    path = folder / "tiny.yml"
    path.write_text(
        f"""
MODEL: {{TRANSFORMER_TYPE: ViT-Test, USE_SDTPS: True, SDTPS_AGGR_RATIO: 0.75, SDTPS_USE_GUMBEL: True, DROP_PATH: 0.1}}
INPUT: {{SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}}
DATASETS: {{NAMES: RGBNT201, ROOT_DIR: {root}}}
DATALOADER: {{NUM_WORKERS: 0, NUM_INSTANCE: 2}}
SOLVER: {{MAX_EPOCHS: 3, WARMUP_EPOCHS: 1, IMS_PER_BATCH: 4, BACKBONE_LR: 0.001, BASE_LR: 0.001}}
OUTPUT_DIR: {folder / "out"}
"""
    )
    return path
