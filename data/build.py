"""Build samples, stores and loaders from a configuration, which no other file of this package reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from data.datasets import find_dataset
from data.loading.augment import TrainAugment, normalize
from data.loading.dataset import StoreDataset
from data.loading.loader import BatchLoader
from data.loading.sampler import IdentityBatchSampler, ShuffledBatchSampler
from data.loading.store import ImageStore, open_store
from data.masks import load_masks
from data.sample import Sample
from data.splits import EvalSplit, ReIDData, hold_out, make_eval_split
from utils import distributed
from utils.cpus import available_cpus


def build_data(cfg: CfgNode) -> ReIDData:
    """List the data set that the configuration names, and generate it first if it can be generated.

    Raises:
        UserError: the data set is unknown, missing or broken.
    """
    dataset = find_dataset(cfg.DATASETS.NAMES)
    settings = {key.lower(): value for key, value in cfg.get(dataset.name.upper(), {}).items()}
    with distributed.main_first():
        root = dataset.prepare(Path(cfg.DATASETS.ROOT_DIR), settings=settings, workers=cfg.DATALOADER.NUM_WORKERS)
    splits = dataset.parse(root)
    protocol = dataset.protocol or cfg.DATASETS.PROTOCOL
    train, validation = splits["train"], None
    if cfg.DATASETS.VAL_IDS:
        train, validation = hold_out(train, cfg.DATASETS.VAL_IDS, protocol)
    test = make_eval_split("test", splits["query"], splits["gallery"], protocol)
    return ReIDData(tuple(train), test, validation)


def build_train_loader(cfg: CfgNode, data: ReIDData, device: torch.device, *, with_masks: bool = False) -> BatchLoader:
    """Build the loader of training batches; `loader.batch_sampler.set_epoch` decides their order.

    If there are several processes, each loads its part of every batch.

    Raises:
        UserError: an image cannot be read or stored, or masks are asked for and cannot be read.
    """
    options = {
        "batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "seed": cfg.SOLVER.SEED,
        "process_rank": distributed.rank(),
        "num_processes": distributed.world_size(),
    }
    if cfg.DATALOADER.SAMPLER == "softmax_triplet":
        num_instances = cfg.DATALOADER.NUM_INSTANCE
        sampler = IdentityBatchSampler(data.labels.tolist(), num_instances=num_instances, **options)
    else:
        sampler = ShuffledBatchSampler(len(data.train), **options)
    return _build_loader(cfg, data.train, data.labels, sampler, device, with_masks=with_masks)


def build_eval_loader(cfg: CfgNode, split: EvalSplit, device: torch.device, *, with_masks: bool = False) -> BatchLoader:
    """Build the loader that reads a split's samples in order.

    Several processes share out the batches that one process would make, so that every feature is bit-identical.

    Raises:
        UserError: see `build_train_loader`.
    """
    step = cfg.TEST.IMS_PER_BATCH
    batches = [list(range(i, min(i + step, len(split.samples)))) for i in range(0, len(split.samples), step)]
    # A process without any batch would not know the shapes of the features.
    batches = batches[distributed.rank() :: distributed.world_size()] or batches[:1]
    return _build_loader(cfg, split.samples, None, batches, device, with_masks=with_masks)


def _build_loader(
    cfg: CfgNode,
    samples: Sequence[Sample],
    labels: np.ndarray | None,
    batch_sampler: Iterable[list[int]],
    device: torch.device,
    *,
    with_masks: bool,
) -> BatchLoader:
    masks = None
    if with_masks:  # read before the images, so that a missing mask is reported at once
        masks = load_masks(samples, tuple(cfg.INPUT.SIZE_TRAIN), workers=max(1, cfg.DATALOADER.NUM_WORKERS))
    dataset = StoreDataset(_open_store(cfg, samples), samples, labels, masks)
    on_device = cfg.DATALOADER.CACHE == "device"
    # A worker process could not share the device's memory, and more workers than cores only slow each other down.
    cores = max(1, available_cpus() // distributed.local_world_size())
    return BatchLoader(
        dataset.to(device) if on_device else dataset,
        batch_sampler,
        num_workers=0 if on_device else min(cfg.DATALOADER.NUM_WORKERS, cores),
        pin_memory=device.type == "cuda" and not on_device,
    )


def _open_store(cfg: CfgNode, samples: Sequence[Sample]) -> ImageStore:
    root = Path(cfg.DATASETS.ROOT_DIR)
    cache_dir = Path(cfg.DATALOADER.CACHE_DIR or (root.parent if root.is_file() else root) / ".decoded")
    in_memory = cfg.DATALOADER.CACHE == "off"
    with contextlib.nullcontext() if in_memory else distributed.main_first():
        return open_store(
            samples,
            size_hw=tuple(cfg.INPUT.SIZE_TRAIN),
            cache_dir=None if in_memory else cache_dir,
            workers=max(1, cfg.DATALOADER.NUM_WORKERS),
        )


def build_augmentation(cfg: CfgNode) -> TrainAugment:
    """Build the training transform of a batch: `augment(images, present, generator)`."""
    return TrainAugment(
        flip_prob=cfg.INPUT.PROB,
        pad_pixels=cfg.INPUT.PADDING,
        erase_prob=cfg.INPUT.RE_PROB,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
        sync_geometry=cfg.INPUT.SYNC_AUG,
        modality_dropout=cfg.INPUT.MODALITY_DROPOUT,
        process_rank=distributed.rank(),
        num_processes=distributed.world_size(),
    )


def build_normalization(cfg: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the evaluation transform of a batch: `normalize(images, present)`."""
    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    return lambda images, present: normalize(images, present, mean=mean, std=std)
