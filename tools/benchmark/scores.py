"""What each score costs: selection inside the backbone compared with none. Both are ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from engine.precision import resolve_precision
from modeling.complexity import count_complexity
from modeling.model import ReIDModel
from modeling.selection import SCORES
from tools.benchmark.build import Bench
from tools.benchmark.stages import GIGA, training_block
from tools.benchmark.timing import Row, compare, timing_row

KEPT = 0.2
"""The share of patches that are kept, as they are, after a third of the blocks."""


def measure_scores(bench: Bench) -> Iterator[Row]:
    """Compare multiply-adds and inference by score, from floats on the device; bfloat16 on CUDA, float32 on the CPU."""
    whole = bench.changed("MODEL.USE_SDTPS", False).make_model().eval()
    block = training_block(whole.backbone.num_blocks)
    inside = bench.changed("MODEL.SDTPS_SPARSE_RATIO", KEPT, "MODEL.SDTPS_AGGREGATION", "none").selecting_after(block)
    models = {name: inside.changed("MODEL.SDTPS_SCORE", name).make_model().eval() for name in SCORES}
    count = bench.cfg.TEST.IMS_PER_BATCH
    images = torch.randn(count, 3, 3, *bench.size_hw, device=bench.device)
    index = torch.arange(count, device=bench.device)
    camera, mask = torch.zeros_like(index), torch.zeros_like(images[:, :, 0], dtype=torch.uint8)
    precision = resolve_precision("bf16" if bench.device.type == "cuda" else "off", bench.device)

    def infer(model: ReIDModel) -> None:
        info = model.describe(index, mask if "coverage" in model.needs else None)
        with torch.inference_mode(), precision.autocast():
            model(images, camera, None, info)

    ways = {name: partial(infer, model) for name, model in {"": whole, **models}.items()}
    times = compare(ways, bench.device, repeats=bench.sizes.repeats, calls=bench.sizes.calls)
    cost = {name: _giga(model, bench) for name, model in {"": whole, **models}.items()}
    where = f"{bench.cfg.MODEL.TRANSFORMER_TYPE}, block {block}"
    for name in models:
        title = f"{name} ({where}) beside no selection"
        yield timing_row(f"inference, {title}, batch {count}", times[name], times[""], samples=count)
        ratio = cost[""] / cost[name]
        yield Row(name=f"multiply-adds, {title}", unit="G", ours=cost[name], reference=cost[""], ratio=ratio)


def _giga(model: ReIDModel, bench: Bench) -> float:
    complexity = count_complexity(model.cpu(), size_hw=bench.size_hw)
    model.to(bench.device)
    return (complexity.layer_macs + complexity.attention_macs) / GIGA
