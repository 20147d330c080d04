"""What selecting inside the backbone saves: MODEL.SDTPS_BLOCK k beside 0, after the last block. Both are ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from modeling.complexity import count_complexity
from modeling.model import ReIDModel
from tools.benchmark.build import Bench, Sizes
from tools.benchmark.timing import Row, compare, rate_row

BLOCKS = (3, 4, 6, 8, 10)
"""Of the twelve of ViT-B-16; a model with fewer blocks is measured after its first."""
GIGA = 1e9


def measure_early(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """Multiply-adds of a triplet, and samples per second in inference from floats on the device, by place.

    In bfloat16 on a card, in float32 on a CPU.
    """
    last = bench.make_model().eval()
    blocks = [k for k in BLOCKS if k < last.backbone.num_blocks] or [1]
    models = {0: last} | {k: bench.selecting_after(k).make_model().eval() for k in blocks}
    macs = {k: count_complexity(model.cpu(), size_hw=bench.size_hw) for k, model in models.items()}
    images = torch.randn(sizes.eval_batch, 3, 3, *bench.size_hw, device=bench.device)
    camera = torch.zeros(len(images), dtype=torch.int64, device=bench.device)
    dtype = torch.bfloat16 if bench.device.type == "cuda" else None

    def infer(model: ReIDModel) -> None:
        with torch.inference_mode(), torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
            model(images, camera)

    ways = {str(k): partial(infer, model.to(bench.device)) for k, model in models.items()}
    times = compare(ways, bench.device, repeats=sizes.repeats, calls=sizes.calls)
    for k in blocks:
        title = f"SDTPS after block {k} beside after the last"
        yield rate_row(
            "early", f"inference, {title}, batch {len(images)}", times[str(k)], times["0"], count=len(images),
            unit="samples",
        )  # fmt: skip
        total = [(macs[place].layer_macs + macs[place].attention_macs) / GIGA for place in (k, 0)]
        yield Row(
            subject="early", name=f"multiply-adds, {title}", unit="G", ours=total[0], peers=total[1],
            ratio=total[1] / total[0],
        )  # fmt: skip


def measure_early_training(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """A training step in bfloat16, by place."""
    block = sizes.early_block
    trainers = {k: bench.selecting_after(k).make_trainer("bf16", in_process=True) for k in (block, 0)}
    batch = next(iter(trainers[0].loader))
    for trainer in trainers.values():
        trainer.state.model.train()
    ways = {str(k): partial(trainer.train_step, batch) for k, trainer in trainers.items()}
    times = compare(ways, bench.device, repeats=sizes.repeats, calls=sizes.calls)
    name = f"step, bf16, SDTPS after block {block} beside after the last, batch {len(batch)}"
    yield rate_row("early", name, times[str(block)], times["0"], count=len(batch), unit="samples")
