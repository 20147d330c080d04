"""The input pipeline alone: from disk or store to a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tools.benchmark.build import Bench, Sizes
from tools.benchmark.timing import Row, compare, rate_row


def measure_input(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """An epoch's batches by our store and by the peers' JPEGs, which worker processes decode and augment."""
    cpu, device = torch.device("cpu"), bench.device
    trainer = bench.make_trainer(in_process=True)
    loader, augment = trainer.loader, trainer.augment
    jpegs = bench.make_peers_loader(trainer)
    generator = torch.Generator()
    dataset, batches = loader.dataset, loader.batch_sampler.batches.tolist()

    def store() -> None:
        for _ in loader:
            pass

    def augmented() -> None:
        for batch in loader:
            augment(batch.images, batch.present, generator)

    def decoded() -> None:
        for _ in jpegs:
            pass

    ways = {"store to uint8 batch": store, "store to augmented float batch": augmented, "peers": decoded}
    times = compare(ways, cpu, repeats=sizes.repeats)
    count = sum(map(len, batches))
    for way in list(ways)[:2]:
        name = f"{way}, on the CPU, beside JPEG to float batch with {jpegs.num_workers} workers"
        yield rate_row("input", name, times[way], times["peers"], count=count, unit="triplets")
    if device.type != "cuda":
        return

    resident, on_card = dataset.to(device), torch.Generator(device)

    def held() -> None:
        for indices in batches:
            batch = resident.__getitems__(indices)
            augment(batch.images, batch.present, on_card)

    on_device = compare({"held": held}, device, repeats=sizes.repeats)
    name = "store held on the card to augmented float batch, beside JPEG to float batch"
    yield rate_row("input", name, on_device["held"], times["peers"], count=count, unit="triplets")
