"""A training step: samples per second, share of the device's arithmetic rate, memory, and where the time goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from data.sample import Batch
from engine.train import Trainer
from modeling.complexity import count_complexity
from tools.benchmark.build import Bench
from tools.benchmark.peak import peak_flops, precision_name
from tools.benchmark.timing import Row, compare, now, peak_memory, timing_row

GIB = 2**30
FORWARD = "forward and losses"
STEP_PARTS = ("copy and augmentation", FORWARD, "backward", "optimiser")
"""The labels (torch.profiler.record_function) in `Trainer.train_step`."""
FORWARD_PARTS = ("backbone", "branches and heads")
"""The labels in `ReIDModel`; what they leave of the forward pass is the losses."""


def measure_training(bench: Bench) -> Iterator[Row]:
    """Compare training steps on one batch, for each batch size.

    Our step starts from bytes and augments them; the reference's starts from what its worker processes would have
    made of them. Both are charged the model's own multiply-adds, three times for forward and backward, whatever
    they compute beyond. Every step measured here takes the diagnostics that training takes every SOLVER.LOG_PERIOD
    steps.
    """
    for sized in bench.by_batch():
        yield from _measure_step(sized)


def _measure_step(bench: Bench) -> Iterator[Row]:
    device, cuda = bench.device, bench.device.type == "cuda"
    trainers = {amp: bench.make_trainer(amp) for amp in bench.precisions}
    first = next(iter(trainers.values()))
    batch = next(iter(first.loader))
    reference = bench.make_reference_trainer(first)
    ways = {amp: partial(trainer.train_step, batch) for amp, trainer in trainers.items()}
    ways["reference"] = partial(reference.step, reference_images(first, batch), batch.pid, batch.camera)
    optimizers = {amp: trainer.state.optimizer for amp, trainer in trainers.items()}
    optimizers["reference"] = reference.optimizer
    times = compare(ways, device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
    memory = {}
    for way, step in ways.items():
        optimizers[way].zero_grad(set_to_none=True)
        memory[way] = peak_memory(step, device)

    complexity = count_complexity(bench.make_model().cpu(), size_hw=bench.size_hw)
    flops = 3 * 2 * len(batch) * (complexity.layer_macs + complexity.attention_macs)
    precision = {amp: amp for amp in trainers} | {"reference": "fp16" if cuda else "off"}
    rates = {way: 100 * flops / times[way].median / peak_flops(device, precision[way]) for way in ways}
    for amp, trainer in trainers.items():
        title = f"{precision_name(amp)}, batch {len(batch)}"
        yield timing_row(f"step, {title}", times[amp], times["reference"], samples=len(batch))
        name = f"share of the rate of large matrix products, {title}"
        yield Row(name=name, unit="%", ours=rates[amp], reference=rates["reference"])
        yield Row(name=f"that rate, {title}", unit="TFLOP/s", ours=peak_flops(device, amp) / 1e12)
        if memory[amp] is not None and memory["reference"] is not None:
            ours, theirs = memory[amp] / GIB, memory["reference"] / GIB
            ratio = theirs / ours if ours > 0 else None
            yield Row(name=f"peak beyond weights, {title}", unit="GiB", ours=ours, reference=theirs, ratio=ratio)
        for part, share in step_shares(trainer, batch, repeats=bench.sizes.repeats).items():
            yield Row(name=f"time in {part}, {title}", unit="%", ours=100 * share)


def measure_compile(bench: Bench) -> Iterator[Row]:
    """Compare a compiled step (torch.compile) with an eager one of ours, and time the first, which compiles."""
    for sized in bench.by_batch():
        compiled, eager = (sized.make_trainer(compiled=compiled) for compiled in (True, False))
        batch = next(iter(compiled.loader))
        start = now(bench.device)
        compiled.train_step(batch)
        if not compiled.forward.is_compiled:
            print("torch.compile does not work here, and is left out.")
            return
        start_up = now(bench.device) - start
        ways = {"compiled": partial(compiled.train_step, batch), "eager": partial(eager.train_step, batch)}
        times = compare(ways, bench.device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
        title = f"batch {len(batch)}"
        yield timing_row(f"compiled step beside eager, {title}", times["compiled"], times["eager"], samples=len(batch))
        yield Row(name=f"first compiled step, {title}", unit="s", ours=start_up)


def reference_images(trainer: Trainer, batch: Batch) -> list[torch.Tensor]:
    """Make of a batch what the reference's loader gives: normalised floats by modality on the CPU, pinned for CUDA."""
    normalized = trainer.evaluate.transform(batch.images, batch.present)
    images = [one.contiguous() for one in normalized.unbind(1)]
    return [one.pin_memory() for one in images] if trainer.device.type == "cuda" else images


def step_shares(trainer: Trainer, batch: Batch, *, repeats: int) -> dict[str, float]:
    """Profile `repeats` training steps and return the share of the time spent in each labelled part.

    On the CPU the time is the host's; on CUDA it is that of the kernels that were launched within a part, by any
    thread, since the backward pass has its own.
    """
    cuda = trainer.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda], acc_events=True) as profiler:
        for _ in range(repeats):
            trainer.train_step(batch)
        now(trainer.device)
    events = [event for event in profiler.events() if event.device_type == DeviceType.CPU]
    launches = [(e.time_range.start, sum(k.duration for k in e.kernels)) for e in events if e.kernels]
    times: Counter[str] = Counter()
    for event in events:
        if event.name in STEP_PARTS + FORWARD_PARTS:
            span = event.time_range
            busy = sum(duration for start, duration in launches if span.start <= start <= span.end)
            times[event.name] += busy if cuda else span.elapsed_us()
    whole = sum(times[part] for part in STEP_PARTS)
    times["losses"] = times.pop(FORWARD) - sum(times[part] for part in FORWARD_PARTS)
    return {part: time / whole for part, time in times.items()}
