"""Selection inside the backbone: MODEL.SDTPS_BLOCK k compared with 0, after the last block. Both are ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from engine.precision import resolve_precision
from modeling.complexity import count_complexity
from modeling.model import ReIDModel
from tools.benchmark.build import Bench
from tools.benchmark.peak import precision_name
from tools.benchmark.timing import Row, compare, timing_row

BLOCKS = (3, 4, 6, 8, 10)
"""Blocks of ViT-B-16, which has twelve; a model with fewer is measured after those that it has."""
GIGA = 1e9


def training_block(num_blocks: int) -> int:
    """Return the block that training selects after: a third of the way, 4 of the 12 of ViT-B-16."""
    return max(1, num_blocks // 3)


def measure_stages(bench: Bench) -> Iterator[Row]:
    """Compare multiply-adds and inference by block, and training steps after a third of the backbone."""
    yield from _measure_inference(bench)
    for sized in bench.by_batch():
        yield from _measure_training(sized)


def _measure_inference(bench: Bench) -> Iterator[Row]:
    """Start from floats on the device, and compute in bfloat16 on CUDA and in float32 on the CPU."""
    last = bench.make_model().eval()
    blocks = [k for k in BLOCKS if k < last.backbone.num_blocks] or [training_block(last.backbone.num_blocks)]
    models = {0: last} | {k: bench.selecting_after(k).make_model().eval() for k in blocks}
    complexities = {k: count_complexity(model.cpu(), size_hw=bench.size_hw) for k, model in models.items()}
    macs = {k: (one.layer_macs + one.attention_macs) / GIGA for k, one in complexities.items()}
    images = torch.randn(bench.sizes.eval_batch, 3, 3, *bench.size_hw, device=bench.device)
    camera = torch.zeros(len(images), dtype=torch.int64, device=bench.device)
    precision = resolve_precision("bf16" if bench.device.type == "cuda" else "off", bench.device)

    def infer(model: ReIDModel) -> None:
        with torch.inference_mode(), precision.autocast():
            model(images, camera)

    ways = {str(k): partial(infer, model.to(bench.device)) for k, model in models.items()}
    times = compare(ways, bench.device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
    for k in blocks:
        title = f"selection after block {k} beside the last"
        name = f"inference, {title}, batch {len(images)}"
        yield timing_row(name, times[str(k)], times["0"], samples=len(images))
        yield Row(name=f"multiply-adds, {title}", unit="G", ours=macs[k], reference=macs[0], ratio=macs[0] / macs[k])


def _measure_training(bench: Bench) -> Iterator[Row]:
    amp = bench.precisions[-1]
    last = bench.make_trainer(amp)
    block = training_block(last.state.model.backbone.num_blocks)
    inside = bench.selecting_after(block).make_trainer(amp)
    batch = next(iter(last.loader))
    ways = {"inside": partial(inside.train_step, batch), "last": partial(last.train_step, batch)}
    times = compare(ways, bench.device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
    name = f"step, {precision_name(amp)}, selection after block {block} beside the last, batch {len(batch)}"
    yield timing_row(name, times["inside"], times["last"], samples=len(batch))
