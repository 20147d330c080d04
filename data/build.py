"""From configuration to samples, stores and loaders: the only file of this package that knows the keys."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.datasets.registry import find_dataset
from data.loading.augment import TrainAugment, normalize
from data.loading.dataset import StoreDataset
from data.loading.sampler import IdentityBatchSampler, ShuffledBatchSampler
from data.loading.store import ImageStore, open_store
from data.sample import Batch, Sample
from data.splits import EvalSplit, ReIDData, hold_out, make_eval_split
from data.synthetic import SyntheticSpec, ensure_synthetic
from utils import distributed
from utils.cpus import available_cpus
from utils.errors import UserError

SYNTHETIC, MANIFEST = "synthetic", "manifest"


class BatchLoader(DataLoader):
    """A DataLoader that says what to do when one of its processes has died.

    Raises:
        UserError: that, while iterating.
    """

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: a batch of its is still in transit
            if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker (pid"):
                raise
            raise UserError(
                f"A process of the loader has died ({' '.join(str(error).split()) or 'end of file'}). Most often the "
                "system has ended it for lack of memory: lower DATALOADER.NUM_WORKERS, then continue with --resume "
                "auto."
            ) from error


def build_data(cfg: CfgNode) -> ReIDData:
    """Parse (and for the synthetic set first generate) the data set that the configuration names.

    Raises:
        UserError: an unknown, missing or broken data set.
    """
    name, root = cfg.DATASETS.NAMES, Path(cfg.DATASETS.ROOT_DIR)
    if name.lower() == SYNTHETIC:
        with distributed.main_first():
            root = ensure_synthetic(root, _synthetic_spec(cfg), workers=cfg.DATALOADER.NUM_WORKERS)
        name = "RGBNT201"  # it is written in that layout
    dataset = find_dataset(name)
    protocol = cfg.DATASETS.PROTOCOL if dataset.name == MANIFEST else dataset.protocol
    splits = dataset.parse(root)
    train, validation = splits["train"], None
    if cfg.DATASETS.VAL_IDS:
        train, validation = hold_out(train, cfg.DATASETS.VAL_IDS, protocol)
    test = make_eval_split("test", splits["query"], splits["gallery"], protocol)
    return ReIDData(tuple(train), test, validation)


def _synthetic_spec(cfg: CfgNode) -> SyntheticSpec:
    keys = cfg.SYNTHETIC
    return SyntheticSpec(
        train_ids=keys.TRAIN_IDS,
        test_ids=keys.TEST_IDS,
        train_images=keys.TRAIN_IMAGES,
        test_images=keys.TEST_IMAGES,
        size_hw=tuple(keys.SIZE),
        difficulty=keys.DIFFICULTY,
        seed=keys.SEED,
    )


def build_train_loader(cfg: CfgNode, data: ReIDData, device: torch.device) -> DataLoader:
    """Batches of uint8 images in the order of a sampler with `set_epoch`, which is `loader.batch_sampler`.

    Of several processes each has its part of every batch.
    """
    options = {"seed": cfg.SOLVER.SEED, "rank": distributed.rank(), "num_ranks": distributed.world_size()}
    if cfg.DATALOADER.SAMPLER == "softmax_triplet":
        sampler = IdentityBatchSampler(
            data.labels.tolist(),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            num_instances=cfg.DATALOADER.NUM_INSTANCE,
            **options,
        )
    else:
        sampler = ShuffledBatchSampler(len(data.train), batch_size=cfg.SOLVER.IMS_PER_BATCH, **options)
    return _loader(cfg, data.train, data.labels, sampler, device)


def build_eval_loader(cfg: CfgNode, split: EvalSplit, device: torch.device) -> DataLoader:
    """Batches of the split's samples in their order.

    Several processes take turns with the very batches that one would make, so that each feature comes out bit-equal.
    """
    step = cfg.TEST.IMS_PER_BATCH
    batches = [list(range(i, min(i + step, len(split.samples)))) for i in range(0, len(split.samples), step)]
    # With nothing of its own to do, a process would not know the features' shapes.
    batches = batches[distributed.rank() :: distributed.world_size()] or batches[:1]
    return _loader(cfg, split.samples, None, batches, device)


def _loader(
    cfg: CfgNode,
    samples: Sequence[Sample],
    labels: np.ndarray | None,
    batch_sampler: Iterable[list[int]],
    device: torch.device,
) -> DataLoader:
    dataset = StoreDataset(_open_store(cfg, samples), samples, labels)
    on_device = cfg.DATALOADER.CACHE == "device"
    # A worker process could not share the device's memory, and more workers than cores only slow each other.
    cores = max(1, available_cpus() // distributed.local_world_size())
    workers = 0 if on_device else min(cfg.DATALOADER.NUM_WORKERS, cores)
    if workers:
        atexit.register(_end_workers)
    return BatchLoader(
        dataset.to(device) if on_device else dataset,
        batch_sampler=batch_sampler,
        collate_fn=_as_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_trainer,
        pin_memory=device.type == "cuda" and not on_device,
    )


def _as_is(batch: Batch) -> Batch:
    """The data set makes whole batches; there is nothing left to collate."""
    return batch


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ctrl-C and schedulers signal the whole process group; the trainer saves, and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_workers() -> None:
    """End, at exit, the workers of a loader that something still holds.

    multiprocessing would ask them by SIGTERM, which they leave to the trainer, and wait for them forever.
    """
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


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
    """The training transform of a batch: `augment(images, present, generator)`."""
    return TrainAugment(
        flip_prob=cfg.INPUT.PROB,
        pad_pixels=cfg.INPUT.PADDING,
        erase_prob=cfg.INPUT.RE_PROB,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
        sync_geometry=cfg.INPUT.SYNC_AUG,
        modality_dropout=cfg.INPUT.MODALITY_DROPOUT,
        rank=distributed.rank(),
        num_ranks=distributed.world_size(),
    )


def build_normalization(cfg: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """The evaluation transform of a batch: `normalize(images, present)`."""
    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    return lambda images, present: normalize(images, present, mean=mean, std=std)
