"""What the pictures are drawn of: a model, the split it is scored on, its features, and single images on demand.

Shapes: N samples of the split, M modality, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""Pixels of an image's longer side in a picture, where the model sees fewer."""


@dataclass(frozen=True)
class Scene:
    """A model and the images it is looked at with. Everything is encoded once, at the first need."""

    model: ReIDModel
    evaluator: Evaluator
    batch_of: Callable[[Sequence[int]], Batch]
    """Positions in the split to a batch on the CPU."""
    size_hw: tuple[int, int]
    """What the model sees, in pixels."""

    @property
    def split(self) -> EvalSplit:
        """The split whose images are shown."""
        return self.evaluator.split

    @cached_property
    def features(self) -> dict[str, torch.Tensor]:
        """(N, D) float32 by descriptor, on the CPU, as they are ranked (scaled where the evaluator does so)."""
        setting = self.evaluator.missing
        descriptors = self.evaluator.encode(self.model, [setting])[setting].descriptors
        scale = self.evaluator.normalize_features
        return {name: (F.normalize(value, dim=1) if scale else value).cpu() for name, value in descriptors.items()}

    @cached_property
    def ranking(self) -> Ranking:
        """The gallery as the headline feature ranks it."""
        split = self.split
        features, reranked = self.features[self.model.feat], self.evaluator.rerank
        return Ranking.of(features, split.pids, split.groups, split.query, split.gallery, reranked=reranked)

    @torch.inference_mode()
    def output(self, index: int) -> ReIDOutput:
        """What the model makes of sample `index` of the split."""
        self.model.eval()
        batch = self.batch_of([index]).to(self.evaluator.precision.device)
        with self.evaluator.precision.autocast():
            return self.model(self.evaluator.transform(batch.images, batch.present), batch.camera, batch.present)

    def pixels(self, index: int) -> list[np.ndarray | None]:
        """M images (H, W, 3) uint8 of a size fit to be shown; None where the modality is absent."""
        sample = self.split.samples[index]
        images = decode_sample(sample, self.display_hw).transpose(0, 2, 3, 1)
        return [image if path is not None else None for image, path in zip(images, sample.paths, strict=True)]

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) float in [0, 1], where the object is, as large as `pixels`; None where the data set does not say."""
        path = self.split.samples[index].mask
        if path is None:
            return None
        height, width = self.display_hw
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255

    @property
    def display_hw(self) -> tuple[int, int]:
        """Height and width of the images in pictures: the proportions that the model sees."""
        factor = max(1.0, DISPLAY_SIDE / max(self.size_hw))
        return round(self.size_hw[0] * factor), round(self.size_hw[1] * factor)


def find_samples(
    samples: Sequence[Sample], wanted: str, *, among: Sequence[int] | None = None, what: str = "image"
) -> list[int]:
    """Positions of the samples that a comma-separated list names, each by its number or its file name.

    Args:
        samples: of the split.
        wanted: '4,17,000258_cam1_0_02'; a file name may lack its ending.
        among: the samples to choose from; numbers count in it. None: all of `samples`.
        what: what they are called in the error.

    Raises:
        UserError: there is no such sample.
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
    """At most `count` of the positions 0 .. available - 1, evenly spaced, none at either end."""
    count = min(count, available)
    return [(2 * i + 1) * available // (2 * count) for i in range(count)]
