"""From configuration to what is measured; sizes by device. The only file of the benchmark that knows the keys."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from configs import get_cfg
from data.build import build_data
from data.splits import ReIDData
from engine.build import build_evaluator, build_trainer
from engine.precision import resolve_device, resolve_precision
from engine.run_folder import RunFolder
from engine.train import Trainer
from modeling import build_loss, build_model
from modeling.model import ReIDModel
from tools.benchmark.reference.loading import JpegDataset, eval_transform, make_loader, train_transform
from tools.benchmark.reference.training import PeersTrainer, make_optimizer
from utils.seeding import seed_all

CONFIGS = Path(__file__).parents[2] / "configs"
PEERS_WORKERS = 2
QUICK = (
    *("MODEL.TRANSFORMER_TYPE", "ViT-Test", "MODEL.SDTPS_AGGR_RATIO", 0.75, "INPUT.SIZE_TRAIN", [64, 32]),
    *("INPUT.SIZE_TEST", [64, 32], "SYNTHETIC.SIZE", [64, 32], "SYNTHETIC.TRAIN_IDS", 4, "SYNTHETIC.TRAIN_IMAGES", 16),
    *("SYNTHETIC.TEST_IDS", 3, "SYNTHETIC.TEST_IMAGES", 12, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 4),
)


SMALL_SET = (
    *("SYNTHETIC.TRAIN_IDS", 8, "SYNTHETIC.TRAIN_IMAGES", 32, "SYNTHETIC.TEST_IDS", 3, "SYNTHETIC.TEST_IMAGES", 8),
    *("SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCE", 4, "DATALOADER.NUM_WORKERS", 0),
)
"""Little for ViT-B-16 on a CPU, with about as many test images to training images as in RGBNT201.

Without worker processes: each keeps the pages of its parent, three large models in the end, as they were at its start.
"""


@dataclass(frozen=True)
class Experiment:
    """What an epoch is measured of."""

    config: str
    opts: tuple[Any, ...] = ()
    early: bool = False
    """Measure a model that selects inside the backbone, too."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    batches: tuple[tuple[int, int], ...]
    """Batches of a training step: (triplets, of which this many share an identity)."""
    eval_batch: int
    early_block: int
    """Where a model selects that trains with selection inside the backbone (MODEL.SDTPS_BLOCK)."""
    missing_opts: tuple[Any, ...]
    """Keys for the table of absent modalities."""
    epochs: tuple[Experiment, ...]
    ranking: tuple[tuple[int, int], ...]
    """Queries x gallery."""
    repeats: int
    epoch_repeats: int
    calls: int
    """Steps between two waits for the device."""


SIZES = {
    "quick": Sizes(
        batches=((4, 2),),
        eval_batch=4,
        early_block=1,
        missing_opts=(),
        epochs=(Experiment("RGBNT201/DeMo_SDTPS.yml", early=True),),
        ranking=((60, 60), (40, 90)),
        repeats=2,
        epoch_repeats=1,
        calls=1,
    ),
    "cpu": Sizes(
        batches=((4, 2),),
        eval_batch=4,
        early_block=4,
        missing_opts=SMALL_SET,
        epochs=(
            Experiment("Synthetic/DeMo_SDTPS.yml"),
            Experiment("RGBNT201/DeMo_SDTPS.yml", SMALL_SET, early=True),
        ),
        ranking=((836, 836), (1715, 8575), (3368, 15913)),
        repeats=5,
        epoch_repeats=3,
        calls=1,
    ),
    "cuda": Sizes(
        batches=((64, 8), (128, 8)),
        eval_batch=128,
        early_block=4,
        missing_opts=(),
        epochs=(Experiment("RGBNT201/DeMo_SDTPS.yml", early=True),),
        ranking=((836, 836), (1715, 8575), (3368, 15913)),
        repeats=10,
        epoch_repeats=3,
        calls=10,
    ),
}


@dataclass(frozen=True)
class Bench:
    """A configuration, its data, and a folder for what is written."""

    cfg: CfgNode
    data: ReIDData
    device: torch.device
    folder: Path

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the images, in pixels."""
        return tuple(self.cfg.INPUT.SIZE_TRAIN)

    def make_model(self) -> ReIDModel:
        """The same random weights every time, on the device."""
        seed_all(self.cfg.SOLVER.SEED)
        model = build_model(
            self.cfg, num_classes=len(self.data.train_pids), num_cameras=self.data.num_cameras, pretrained=False
        )
        return model.to(self.device)

    def selecting_after(self, block: int) -> Bench:
        """The same with MODEL.SDTPS_BLOCK `block`."""
        return replace(self, cfg=changed(self.cfg, "MODEL.SDTPS_BLOCK", block))

    def make_trainer(self, amp: str = "auto", *, compiled: bool = False, in_process: bool = False) -> Trainer:
        """Our trainer of one epoch, with the precision SOLVER.AMP `amp`; `in_process`: without worker processes."""
        cfg = changed(self.cfg, "SOLVER.AMP", amp, "SOLVER.COMPILE", compiled)
        if in_process:
            cfg = changed(cfg, "DATALOADER.NUM_WORKERS", 0)
        model = self.make_model()
        return build_trainer(
            cfg,
            self.data,
            model,
            evaluator=build_evaluator(cfg, self.data.test, model, self.device),
            folder=RunFolder(self.folder / "ours"),
            precision=resolve_precision(amp, self.device),
        )

    def make_peers_trainer(self, like: Trainer) -> PeersTrainer:
        """The peers' trainer of equal weights, losses and rates."""
        model = copy.deepcopy(like.state.model)
        by_name = dict(model.named_parameters())
        names = {id(parameter): name for name, parameter in like.state.model.named_parameters()}
        groups = [
            {**group, "params": [by_name[names[id(parameter)]] for parameter in group["params"]]}
            for group in like.state.optimizer.param_groups
        ]
        return PeersTrainer(model, build_loss(self.cfg), make_optimizer(groups), self.device)

    def make_peers_loader(self, like: Trainer) -> DataLoader:
        """JPEGs in the order of our sampler, augmented by its settings."""
        dataset = JpegDataset(self.data.train, self.data.labels, train_transform(self.size_hw, like.augment))
        pinned = self.device.type == "cuda"
        return make_loader(dataset, like.loader.batch_sampler, workers=self._peers_workers, pin_memory=pinned)

    def make_peers_eval_loader(self, like: Trainer) -> DataLoader:
        """Every query, then every gallery image, as JPEGs: what is in both is loaded and encoded twice."""
        split = self.data.test
        samples = [split.samples[i] for i in (*split.query, *split.gallery)]
        transform = eval_transform(self.size_hw, like.augment)
        dataset = JpegDataset(samples, [sample.pid for sample in samples], transform)
        step = self.cfg.TEST.IMS_PER_BATCH
        batches = [list(range(i, min(i + step, len(samples)))) for i in range(0, len(samples), step)]
        return make_loader(dataset, batches, workers=self._peers_workers, pin_memory=self.device.type == "cuda")

    @property
    def _peers_workers(self) -> int:
        return PEERS_WORKERS if self.cfg.DATALOADER.NUM_WORKERS else 0


def build_bench(
    config: str,
    *,
    root: Path,
    folder: Path,
    device: str,
    quick: bool = False,
    batch: tuple[int, int] | None = None,
    opts: tuple[Any, ...] = (),
) -> Bench:
    """The experiment `config` of the configs folder on the synthetic set under `root`, with random weights.

    Args:
        folder: for what the runs write.
        quick: a tiny model and data set, without worker processes.
        batch: triplets of a batch, and how many share an identity; None leaves the configuration's.
        opts: keys and values that go before these settings.
    """
    base = ["MODEL.DEVICE", device, "DATASETS.NAMES", "synthetic", "DATASETS.ROOT_DIR", str(root)]
    base += ["MODEL.PRETRAIN_PATH_T", "", "OUTPUT_DIR", str(folder), "TEST.UNTRAINED", False]
    base += ["SOLVER.MAX_EPOCHS", 1, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.EVAL_PERIOD", 1]
    base += ["DATALOADER.NUM_WORKERS", 0 if quick else PEERS_WORKERS]
    base += opts
    if quick:
        base += QUICK
    if batch:
        base += ["SOLVER.IMS_PER_BATCH", batch[0], "DATALOADER.NUM_INSTANCE", batch[1]]
    cfg = get_cfg(CONFIGS / config, [str(value) if not isinstance(value, str) else value for value in base])
    return Bench(cfg, build_data(cfg), resolve_device(device), folder)


def changed(cfg: CfgNode, *opts: Any) -> CfgNode:
    """A frozen copy with other values."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg
