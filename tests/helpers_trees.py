"""Miniature data sets in their true layouts, for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.records import MODALITIES


def write_image(path: Path, seed: int, size_hw=(64, 32), colour=None) -> Path:
    """A JPEG of noise around a colour that is a function of `seed`."""
    rng = np.random.default_rng(seed)
    base = np.array(colour if colour is not None else rng.integers(40, 216, 3))
    pixels = np.clip(base + rng.normal(0, 12, (*size_hw, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_rgbnt201(root: Path, *, train_ids=6, test_ids=4, images_per_id=4, size_hw=(64, 32)) -> Path:
    """RGBNT201/{train_171,test}/{RGB,NI,TI}: every identity in two cameras, with a colour of its own per modality."""
    for split, first, count in (("train_171", 1, train_ids), ("test", 500, test_ids)):
        for pid in range(first, first + count):
            for i in range(images_per_id):
                name = f"{pid:06d}_cam{i % 2 + 1}_0_{i:02d}.jpg"
                for m, modality in enumerate(MODALITIES):
                    colour = np.random.default_rng((pid, m)).integers(40, 216, 3)
                    write_image(root / "RGBNT201" / split / modality / name, pid * 100 + i, size_hw, colour)
    return root
