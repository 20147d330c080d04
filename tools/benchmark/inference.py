"""Inference, and a table of absent modalities."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from engine.missing import NOTHING, SETTINGS
from engine.precision import resolve_precision
from tools.benchmark.build import Bench
from tools.benchmark.peak import precision_name
from tools.benchmark.reference import training
from tools.benchmark.timing import Row, compare, timing_row


def measure_inference(bench: Bench) -> Iterator[Row]:
    """Compare all descriptors of a batch: ours takes one pass, the reference one pass per descriptor.

    Our pass starts from bytes on the device and leaves the descriptors there. The reference starts from normalised
    floats there, and moves each batch's descriptors to the CPU.
    """
    device = bench.device
    trainer = bench.make_trainer("off")
    model, normalize = trainer.state.model.eval(), trainer.evaluate.transform
    batch = next(iter(trainer.evaluate.loader)).to(device)
    batch = batch.apply(lambda tensor: tensor[: bench.sizes.eval_batch])
    ready = [(list(normalize(batch.images, batch.present).unbind(1)), batch.pid, batch.camera)]
    names = model.descriptor_names

    def encode(amp: str) -> None:
        with torch.inference_mode(), resolve_precision(amp, device).autocast():
            model(normalize(batch.images, batch.present), batch.camera, batch.present)

    def encode_by_reference(names: tuple[str, ...]) -> None:
        for name in names:
            training.encode(model, ready, name, device)

    ways = {amp: partial(encode, amp) for amp in bench.precisions}
    ways |= {
        "reference": partial(encode_by_reference, names),
        "reference, one": partial(encode_by_reference, names[:1]),
    }
    times = compare(ways, device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
    for amp in bench.precisions:
        title = f"{precision_name(amp)}, batch {len(batch)}"
        count = len(batch)
        yield timing_row(f"all {len(names)} descriptors, {title}", times[amp], times["reference"], samples=count)
        yield timing_row(f"one descriptor, {title}", times[amp], times["reference, one"], samples=count)


def measure_missing(bench: Bench) -> Iterator[Row]:
    """Compare seven settings of absent modalities with one, both ours: the backbone sees each image once in either."""
    amp = bench.precisions[-1]
    trainer = bench.make_trainer(amp)
    score = partial(trainer.evaluate.score, trainer.state.model)
    ways = {"table": partial(score, SETTINGS), "one": partial(score, [NOTHING])}
    times = compare(ways, bench.device, repeats=bench.sizes.repeats)
    count = len(trainer.evaluate.split.samples)
    name = f"{len(SETTINGS)} settings of absent modalities beside 1, {precision_name(amp)}, {count} samples"
    yield timing_row(name, times["table"], times["one"])
