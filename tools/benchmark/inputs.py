"""The input pipeline alone: from disk or store to a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch

from data.sample import Batch
from tools.benchmark.build import Bench
from tools.benchmark.timing import Row, compare, timing_row


def measure_input(bench: Bench) -> Iterator[Row]:
    """Compare an epoch's batches from our store with the reference's JPEGs, which worker processes decode."""
    trainer = bench.make_trainer()
    loader, augment = trainer.loader, trainer.augment
    jpegs = bench.make_reference_loader(trainer)
    batches = loader.batch_sampler.batches.tolist()

    def augmented(source: Iterable[Batch], generator: torch.Generator) -> None:
        for batch in source:
            augment(batch.images, batch.present, generator)

    ways = {
        "store to uint8 batch, on the CPU": partial(_exhaust, loader),
        "store to augmented float batch, on the CPU": partial(augmented, loader, torch.Generator()),
        "reference": partial(_exhaust, jpegs),
    }
    times = compare(ways, torch.device("cpu"), repeats=bench.sizes.repeats)
    reference = times.pop("reference")
    if bench.device.type == "cuda":
        resident, generator = loader.dataset.to(bench.device), torch.Generator(bench.device)
        ways = {
            "store on the GPU to augmented float batch": lambda: augmented(
                map(resident.__getitems__, batches), generator
            )
        }
        times |= compare(ways, bench.device, repeats=bench.sizes.repeats)
    for way, timing in times.items():
        name = f"{way}, beside JPEG to float batch with {jpegs.num_workers} workers"
        yield timing_row(name, timing, reference, samples=sum(map(len, batches)))


def _exhaust(loader: Iterable) -> None:
    for _ in loader:
        pass
