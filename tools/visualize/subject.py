"""What the pictures show: a model, the split that it is evaluated on, its descriptors, and single images on demand.

Shapes: N samples of the split, M modality, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from data.loading.decode import decode_sample
from data.sample import Batch, Sample
from data.splits import EvalSplit
from engine.evaluate import Evaluator
from modeling.model import ReIDModel, ReIDOutput
from tools.visualize.ranking import Ranking
from utils.errors import UserError

DISPLAY_SIDE = 256
"""The longer side of an image in a picture has at least this many pixels."""


@dataclass(frozen=True)
class Subject:
    """A model and the test set that it is shown on. The test set is encoded once, when it is first needed."""

    model: ReIDModel
    evaluator: Evaluator
    size_hw: tuple[int, int]
    """Height and width in pixels of the images that the model sees."""
    facts: dict[str, str]
    """Names the data set, the backbone and the checkpoint."""

    @property
    def split(self) -> EvalSplit:
        """Return the split whose images are shown."""
        return self.evaluator.split

    @property
    def descriptor(self) -> str:
        """Return the name of the descriptor that the gallery is ranked by."""
        return self.model.descriptor

    @cached_property
    def descriptors(self) -> dict[str, torch.Tensor]:
        """Encode the split: (N, D) float32 by name, on the CPU, scaled as the evaluator scales them for ranking."""
        setting = self.evaluator.missing
        descriptors = self.evaluator.encode(self.model, [setting])[setting].descriptors
        scale = self.evaluator.normalize_features
        return {name: (F.normalize(value, dim=1) if scale else value).cpu() for name, value in descriptors.items()}

    @cached_property
    def ranking(self) -> Ranking:
        """Rank the gallery for each query."""
        return Ranking.from_split(self.descriptors[self.descriptor], self.split, reranked=self.evaluator.rerank)

    def inputs(self, index: int) -> tuple[torch.Tensor, Batch]:
        """Load the normalised images (1, M, 3, H, W) of sample `index` of the split, and its batch of one."""
        batch = self.evaluator.loader.dataset.__getitems__([index]).to(self.evaluator.precision.device)
        return self.evaluator.transform(batch.images, batch.present), batch

    @torch.inference_mode()
    def output(self, index: int) -> ReIDOutput:
        """Run the model on sample `index` of the split."""
        self.model.eval()
        return self.run(*self.inputs(index))

    def run(self, images: torch.Tensor, batch: Batch) -> ReIDOutput:
        """Run the model on normalised images (B, M, 3, H, W) in the place of those of `batch`."""
        info = self.model.describe(batch.index, batch.masks)
        with self.evaluator.precision.autocast():
            return self.model(images, batch.camera, batch.present, info)

    def pixels(self, index: int) -> list[np.ndarray | None]:
        """Decode M images (H, W, 3) uint8 at display size; None where the modality is absent."""
        sample = self.split.samples[index]
        images = decode_sample(sample, self.display_hw).transpose(0, 2, 3, 1)
        return [image if path is not None else None for image, path in zip(images, sample.paths, strict=True)]

    def mask(self, index: int) -> np.ndarray | None:
        """Load the object's mask (H, W) float in [0, 1], as large as `pixels`; None if the data set has none."""
        path = self.split.samples[index].mask
        if path is None:
            return None
        height, width = self.display_hw
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255

    @property
    def display_hw(self) -> tuple[int, int]:
        """Return the height and width of images in pictures, in the proportions that the model sees."""
        factor = max(1.0, DISPLAY_SIDE / max(self.size_hw))
        return round(self.size_hw[0] * factor), round(self.size_hw[1] * factor)

    def group_name(self, index: int) -> str:
        """Name the group that the protocol compares: the camera or scene of sample `index`."""
        sample = self.split.samples[index]
        return f"camera {sample.camera + 1}" if self.split.protocol == "camera" else f"scene {sample.scene}"


def find_samples(
    samples: Sequence[Sample], wanted: str, *, among: Sequence[int] | None = None, what: str = "image"
) -> list[int]:
    """Find the samples that a comma-separated list names, each by its number or its file name.

    Args:
        samples: those of the split.
        wanted: such as '4,17,000258_cam1_0_02'; the suffix of a file name may be left out.
        among: positions of the samples to choose from, which numbers count in; None: all of `samples`.
        what: what the error calls a sample.

    Returns:
        Positions in `samples`.

    Raises:
        UserError: a sample does not exist.
    """
    among = range(len(samples)) if among is None else among
    by_name: dict[str, int] = {}
    for i in among:
        name = samples[i].name
        by_name.setdefault(name, int(i))
        by_name.setdefault(name.rsplit(".", 1)[0], int(i))
    found = []
    for word in filter(None, map(str.strip, wanted.split(","))):
        if word in by_name:
            found.append(by_name[word])
        elif word.isdecimal() and int(word) < len(among):
            found.append(int(among[int(word)]))
        else:
            raise UserError(
                f"There is no {what} {word!r}. Allowed: numbers 0 to {len(among) - 1} and file names such as "
                f"{samples[among[0]].name}, separated by commas."
            )
    return found


def spread(count: int, available: int) -> list[int]:
    """Choose at most `count` of the positions 0 .. available - 1, evenly spaced and away from either end."""
    count = min(count, available)
    return [(2 * i + 1) * available // (2 * count) for i in range(count)]
