"""From configuration to what is measured; sizes by device. The only file of the benchmark that reads keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader
from yacs.config import CfgNode

from configs import get_cfg
from data.build import build_data
from data.splits import ReIDData
from engine.build import build_evaluator, build_trainer
from engine.precision import resolve_device
from engine.run_folder import RunFolder
from engine.train import Trainer
from modeling import build_loss, build_model
from modeling.model import ReIDModel
from tools.benchmark.peak import faster_precision
from tools.benchmark.reference.loading import JpegDataset, eval_transform, train_transform
from tools.benchmark.reference.training import ReferenceTrainer, make_optimizer
from utils.seeding import seed_all

CONFIGS = Path(__file__).parents[2] / "configs"
WORKERS = 2
QUICK = (
    *("MODEL.TRANSFORMER_TYPE", "ViT-Test", "MODEL.SDTPS_AGGR_RATIO", 0.75, "INPUT.SIZE_TRAIN", [64, 32]),
    *("INPUT.SIZE_TEST", [64, 32], "SYNTHETIC.SIZE", [64, 32], "SYNTHETIC.TRAIN_IDS", 4, "SYNTHETIC.TRAIN_IMAGES", 16),
    *("SYNTHETIC.TEST_IDS", 3, "SYNTHETIC.TEST_IMAGES", 12, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 4),
    *("DATALOADER.NUM_WORKERS", 0),
)
SMALL_SET = (
    *("SYNTHETIC.TRAIN_IDS", 8, "SYNTHETIC.TRAIN_IMAGES", 32, "SYNTHETIC.TEST_IDS", 3, "SYNTHETIC.TEST_IMAGES", 8),
    *("SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCE", 4, "DATALOADER.NUM_WORKERS", 0),
)
"""A set that ViT-B-16 passes through in seconds on a CPU, with RGBNT201's share of test images.

There are no worker processes, because each would hold a copy of its parent's pages, three large models in the end.
"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    batches: tuple[tuple[int, int], ...]
    """Training batches: (samples, samples per identity)."""
    eval_batch: int
    whole_set: tuple[Any, ...] = ()
    """Keys and values that suit a whole epoch of ViT-B-16 to the device."""
    rankings: tuple[tuple[int, int], ...] = ((836, 836), (1715, 8575), (3368, 15913))
    """Queries x gallery images, those of RGBNT201, RGBNT100 and Market-1501."""
    repeats: int
    epoch_repeats: int
    calls: int
    """Steps between two waits for the device."""


SIZES = {
    "quick": Sizes(batches=((4, 2),), eval_batch=4, rankings=((60, 60), (40, 90)), repeats=2, epoch_repeats=1, calls=1),
    "cpu": Sizes(batches=((4, 2),), eval_batch=4, whole_set=SMALL_SET, repeats=5, epoch_repeats=3, calls=1),
    "cuda": Sizes(batches=((64, 8), (128, 8)), eval_batch=128, repeats=10, epoch_repeats=3, calls=10),
}


@dataclass(frozen=True)
class Bench:
    """A configuration, what is measured of it, and a folder for what the runs write."""

    cfg: CfgNode
    device: torch.device
    folder: Path
    sizes: Sizes

    @cached_property
    def data(self) -> ReIDData:
        """Load the data set, which is drawn first if need be."""
        return build_data(self.cfg)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the precisions (SOLVER.AMP) to be measured, the fastest last: float32 counts on processors only."""
        fastest = faster_precision(self.device)
        return (fastest,) if self.device.type == "cuda" else tuple(dict.fromkeys(("off", fastest)))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Return the height and width of the images in pixels."""
        return tuple(self.cfg.INPUT.SIZE_TRAIN)

    def changed(self, *opts: Any) -> Bench:
        """Return the same with other values of some keys."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.merge_from_list(list(opts))
        cfg.freeze()
        return replace(self, cfg=cfg)

    def by_batch(self) -> Iterator[Bench]:
        """Yield the same with each of the training batches to be measured."""
        for batch, per_identity in self.sizes.batches:
            yield self.changed("SOLVER.IMS_PER_BATCH", batch, "DATALOADER.NUM_INSTANCE", per_identity)

    def selecting_after(self, block: int) -> Bench:
        """Return the same with the patch selection after a block of the backbone; 0 is after the last."""
        return self.changed("MODEL.SDTPS_BLOCK", block)

    def make_model(self) -> ReIDModel:
        """Build a model on the device, with the same random weights every time."""
        seed_all(self.cfg.SOLVER.SEED)
        model = build_model(
            self.cfg, num_classes=len(self.data.train_pids), num_cameras=self.data.num_cameras, pretrained=False
        )
        return model.to(self.device)

    def make_trainer(self, amp: str = "auto", *, compiled: bool = False, in_process: bool = True) -> Trainer:
        """Build our trainer, for one epoch.

        Args:
            amp: precision, as SOLVER.AMP.
            compiled: use torch.compile, as SOLVER.COMPILE.
            in_process: load without worker processes.
        """
        workers = 0 if in_process else self.cfg.DATALOADER.NUM_WORKERS
        cfg = self.changed("SOLVER.AMP", amp, "SOLVER.COMPILE", compiled, "DATALOADER.NUM_WORKERS", workers).cfg
        model = self.make_model()
        evaluator = build_evaluator(cfg, self.data.test, model, self.device)
        folder = RunFolder(self.folder / "ours")
        return build_trainer(cfg, self.data, model, self.device, evaluator=evaluator, folder=folder)

    def make_reference_trainer(self, like: Trainer) -> ReferenceTrainer:
        """Build the reference's trainer, with the weights, losses and learning rates of ours."""
        model = copy.deepcopy(like.state.model)
        by_name = dict(model.named_parameters())
        names = {id(parameter): name for name, parameter in like.state.model.named_parameters()}
        groups = [
            {**group, "params": [by_name[names[id(parameter)]] for parameter in group["params"]]}
            for group in like.state.optimizer.param_groups
        ]
        return ReferenceTrainer(model, build_loss(self.cfg), make_optimizer(groups), self.device)

    def make_reference_loader(self, like: Trainer) -> DataLoader:
        """Load JPEGs in the order of our sampler, augmented with the settings of our trainer."""
        dataset = JpegDataset(self.data.train, self.data.labels, train_transform(self.size_hw, like.augment))
        return self._reference_loader(dataset, like.loader.batch_sampler)

    def make_reference_eval_loader(self, like: Trainer) -> DataLoader:
        """Load all queries and then the gallery as JPEGs: a sample that is in both is loaded and encoded twice."""
        split = self.data.test
        samples = [split.samples[i] for i in (*split.query, *split.gallery)]
        dataset = JpegDataset(samples, [s.pid for s in samples], eval_transform(self.size_hw, like.augment))
        batches = BatchSampler(range(len(samples)), self.cfg.TEST.IMS_PER_BATCH, drop_last=False)
        return self._reference_loader(dataset, batches)

    def _reference_loader(self, dataset: JpegDataset, batches: Iterable[list[int]]) -> DataLoader:
        workers = self.cfg.DATALOADER.NUM_WORKERS
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )


def build_bench(
    config: str, *, root: Path, folder: Path, device: str, quick: bool = False, opts: tuple[Any, ...] = ()
) -> Bench:
    """Load the experiment `config` of the configs folder, on the synthetic set under `root` and with random weights.

    Args:
        config: the YAML's path inside the configs folder.
        root: folder of the synthetic set.
        folder: where the runs write.
        device: as MODEL.DEVICE.
        quick: use a tiny model and data set, without worker processes.
        opts: keys and values that override the experiment's own.
    """
    resolved = resolve_device(device)
    base = ["MODEL.DEVICE", device, "DATASETS.NAMES", "synthetic", "DATASETS.ROOT_DIR", root]
    base += ["MODEL.PRETRAIN_PATH_T", "", "OUTPUT_DIR", folder, "TEST.UNTRAINED", False]
    base += ["SOLVER.MAX_EPOCHS", 1, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.EVAL_PERIOD", 1]
    base += ["DATALOADER.NUM_WORKERS", WORKERS, *opts, *(QUICK if quick else ())]
    cfg = get_cfg(CONFIGS / config, list(map(str, base)))
    return Bench(cfg, resolved, folder, SIZES["quick" if quick else resolved.type])
