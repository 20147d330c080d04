"""A table of absent modalities: what seven settings cost beside one. Both are ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from engine.missing import NOTHING, SETTINGS
from tools.benchmark.build import Bench, Sizes
from tools.benchmark.timing import Row, compare, time_row


def measure_missing(bench: Bench, sizes: Sizes) -> Iterator[Row]:
    """The test set encoded and scored by setting: the backbone sees each image once, whatever their number."""
    trainer = bench.make_trainer("bf16", in_process=True)
    score = partial(trainer.evaluate.score, trainer.state.model)
    ways = {"table": partial(score, SETTINGS), "one": partial(score, [NOTHING])}
    times = compare(ways, bench.device, repeats=sizes.repeats)
    count = len(trainer.evaluate.split.samples)
    name = f"{len(SETTINGS)} settings of absent modalities beside 1, bf16, {count} triplets"
    yield time_row("missing", name, times["table"], times["one"])
