"""A training step and inference: samples per second, memory, share of the device's peak, where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from data.sample import Batch
from engine.train import Trainer
from modeling.complexity import count_complexity
from tools.benchmark.build import Bench, Sizes
from tools.benchmark.peak import Peak
from tools.benchmark.reference import training
from tools.benchmark.timing import Row, StepClock, compare, peak_memory, rate_row

GIB = 2**30


def measure_training(bench: Bench, sizes: Sizes, peak: Peak) -> Iterator[Row]:
    """Steps on one batch; ours begins with bytes and augments them, the peers' with what its workers made of them.

    Both are charged the model's own multiply-adds, three times over for forward and backward (MFU), whatever they
    compute beyond. Ours takes its diagnostics in every step measured here, in training in one of SOLVER.LOG_PERIOD.
    """
    subject, device, cuda = "train", bench.device, bench.device.type == "cuda"
    trainers = {amp: bench.make_trainer(amp, in_process=True) for amp in (["bf16"] if cuda else ["off", "bf16"])}
    first = next(iter(trainers.values()))
    batch = next(iter(first.loader))
    other = bench.make_peers_trainer(first)
    images = peers_images(first, batch)
    ways = {amp: lambda trainer=trainer: trainer.train_step(batch) for amp, trainer in trainers.items()}
    ways["peers"] = lambda: other.step(images, batch.pid, batch.camera)
    for trainer in trainers.values():
        trainer.state.model.train()
    times = compare(ways, device, repeats=sizes.repeats, calls=sizes.calls)

    flops = 3 * 2 * len(batch) * _macs(bench)
    for amp in trainers:
        title = f"{_type(amp)}, batch {len(batch)}"
        yield rate_row(subject, f"step, {title}", times[amp], times["peers"], count=len(batch), unit="samples")
        mfu = [
            100 * flops / times[way].median / peak.flops(dtype) for way, dtype in ((amp, amp), ("peers", _peers(cuda)))
        ]
        yield Row(subject=subject, name=f"share of peak (MFU), {title}", unit="%", ours=mfu[0], peers=mfu[1])
        memory = []
        for way, optimizer in ((amp, trainers[amp].state.optimizer), ("peers", other.optimizer)):
            optimizer.zero_grad(set_to_none=True)
            memory.append(peak_memory(ways[way], device))
        if None not in memory:
            ours, theirs = (value / GIB for value in memory)
            ratio = theirs / ours if ours > 0 else None
            yield Row(
                subject=subject, name=f"peak beyond weights, {title}", unit="GiB", ours=ours, peers=theirs, ratio=ratio
            )
        for part, share in step_shares(trainers[amp], batch, sizes.repeats).items():
            yield Row(subject=subject, name=f"time in {part}, {title}", unit="%", ours=100 * share)


def measure_inference(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """All feature descriptors of a batch: one pass of ours, one pass per descriptor the peers' way.

    Ours begins with bytes on the device and leaves the features there; the peers' begins with normalised floats there,
    and hands each batch's features to the CPU at unit length.
    """
    device, cuda = bench.device, bench.device.type == "cuda"
    trainer = bench.make_trainer("off", in_process=True)
    model, normalize = trainer.state.model.eval(), trainer.evaluate.transform
    batch = next(iter(trainer.evaluate.loader)).to(device)
    batch = Batch(**{name: getattr(batch, name)[: sizes.eval_batch] for name in batch.__slots__})
    ready = [(list(normalize(batch.images, batch.present).unbind(1)), batch.pid, batch.camera)]

    def ours(dtype: torch.dtype | None) -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            model(normalize(batch.images, batch.present), batch.camera)

    def theirs() -> None:
        for descriptor in model.descriptor_names:
            training.encode(model, ready, descriptor, device)

    ways = {
        "bf16": lambda: ours(torch.bfloat16),
        "peers": theirs,
        "peers, one": lambda: training.encode(model, ready, "all", device),
    }
    if not cuda:
        ways["off"] = lambda: ours(None)
    times = compare(ways, device, repeats=sizes.repeats, calls=sizes.calls)
    for amp in (way for way in ways if not way.startswith("peers")):
        title = f"{_type(amp)}, batch {len(batch)}"
        count, descriptors = len(batch), len(model.descriptor_names)
        yield rate_row(
            "infer", f"all {descriptors} features, {title}", times[amp], times["peers"], count=count, unit="samples"
        )
        yield rate_row("infer", f"one feature, {title}", times[amp], times["peers, one"], count=count, unit="samples")


def measure_compile(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """torch.compile of the model: a step beside the eager one, and what the first one costs. Both are ours."""
    trainers = [bench.make_trainer("auto", compiled=compiled, in_process=True) for compiled in (True, False)]
    batch = next(iter(trainers[0].loader))
    for trainer in trainers:
        trainer.state.model.train()
    start = time.perf_counter()
    trainers[0].train_step(batch)
    if not trainers[0].forward.is_compiled:
        print("torch.compile does not work here, and is left out.")
        return
    start_up = time.perf_counter() - start
    ways = dict(zip(("compiled", "eager"), (lambda t=t: t.train_step(batch) for t in trainers), strict=True))
    times = compare(ways, bench.device, repeats=sizes.repeats, calls=sizes.calls)
    yield rate_row(
        "compile", f"step compiled beside eager, batch {len(batch)}", times["compiled"], times["eager"],
        count=len(batch), unit="samples",
    )  # fmt: skip
    yield Row(subject="compile", name="first step compiled", unit="s", ours=start_up)


def peers_images(trainer: Trainer, batch: Batch) -> list[torch.Tensor]:
    """A batch as the peers' loader hands it over: normalised floats of each modality on the CPU, pinned for a card."""
    normalized = trainer.evaluate.transform(batch.images, batch.present)
    images = [of_modality.contiguous() for of_modality in normalized.unbind(1)]
    return [of_modality.pin_memory() for of_modality in images] if trainer.device.type == "cuda" else images


def step_shares(trainer: Trainer, batch: Batch, repeats: int) -> dict[str, float]:
    """Shares of a step's time by part, over `repeats` steps: `Trainer.train_step` in pieces."""
    state, totals = trainer.state, {}
    for _ in range(repeats):
        clock = StepClock(trainer.device)
        moved = batch.to(trainer.device)
        present = trainer.augment.drop_modalities(moved.present, trainer.generator)
        images = trainer.augment(moved.images, present, trainer.generator)
        clock.mark("copy and augmentation")
        with trainer.precision.autocast():
            tokens = state.model.encode(images, moved.camera)
            clock.mark("backbone")
            output = state.model.decode(tokens)
            total = sum(trainer.loss(output.features, output.logits, moved.pid).values())
        clock.mark("branches, heads, losses")
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(total).backward()
        clock.mark("backward")
        state.optimizer.found_inf = (~torch.isfinite(total.detach())).float()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        clock.mark("optimiser")
        for part, seconds in clock.seconds().items():
            totals[part] = totals.get(part, 0.0) + seconds
    return {part: seconds / sum(totals.values()) for part, seconds in totals.items()}


def _macs(bench: Bench) -> int:
    """Multiply-adds of one triplet, forward, attention included."""
    complexity = count_complexity(bench.make_model().cpu(), size_hw=bench.size_hw)
    return complexity.layer_macs + complexity.attention_macs


def _type(amp: str) -> str:
    return "fp32" if amp == "off" else amp


def _peers(cuda: bool) -> str:
    return "fp16" if cuda else "off"
