"""A whole epoch: training, evaluation of every descriptor, saving."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from engine.train import Trainer
from tools.benchmark.build import Bench
from tools.benchmark.peak import precision_name
from tools.benchmark.reference import ranking, training
from tools.benchmark.stages import training_block
from tools.benchmark.timing import Row, Timing, now, timing_row

PARTS = ("train", "evaluate", "save")


class ReferenceEpoch:
    """An epoch of the reference: train from JPEGs, evaluate in one pass for each descriptor, save the weights."""

    def __init__(self, bench: Bench, like: Trainer) -> None:
        self.bench = bench
        self.trainer = bench.make_reference_trainer(like)
        self.train_loader = bench.make_reference_loader(like)
        self.eval_loader = bench.make_reference_eval_loader(like)
        self.scores: dict[str, float] = {}
        """mAP by descriptor after the last epoch."""

    def __call__(self) -> dict[str, float]:
        """Run the epoch and return the seconds of each part."""
        marks = [now(self.bench.device)]
        for images, pid, camera in self.train_loader:
            self.trainer.step(images, pid, camera)
        marks.append(now(self.bench.device))
        self.scores = {name: self._score(name) for name in self.trainer.model.descriptor_names}
        marks.append(now(self.bench.device))
        torch.save(self.trainer.model.state_dict(), self.bench.folder / "reference.pth")
        return _seconds([*marks, now(self.bench.device)])

    def _score(self, descriptor: str) -> float:
        split = self.bench.data.test
        features = training.encode(self.trainer.model, self.eval_loader, descriptor, self.bench.device).numpy()
        distance = ranking.squared_distances(*(features[: len(split.query)], features[len(split.query) :]))
        labels = (values[rows] for rows in (split.query, split.gallery) for values in (split.pids, split.groups))
        return ranking.evaluate(distance, *labels)[0]


def run_ours(trainer: Trainer) -> dict[str, float]:
    """Run `Trainer.fit` for one epoch and return the seconds of each part; what follows the evaluation is saving."""
    marks, evaluate = [now(trainer.device)], trainer.evaluate

    def timed_evaluate(model: torch.nn.Module) -> dict:
        marks.append(now(trainer.device))
        record = evaluate(model)
        marks.append(now(trainer.device))
        return record

    trainer.evaluate = timed_evaluate
    try:
        trainer.fit()
    finally:
        trainer.evaluate = evaluate
    return _seconds([*marks, now(trainer.device)])


def _seconds(marks: list[float]) -> dict[str, float]:
    """Return the seconds of each part, between four marks, and of the whole."""
    parts = {part: end - start for part, (start, end) in zip(PARTS, pairwise(marks), strict=True)}
    return parts | {"whole": marks[-1] - marks[0]}


def measure_epoch(bench: Bench) -> Iterator[Row]:
    """Compare epochs of two models of ours, one with the selection inside the backbone, with the reference.

    Stores, loaders and worker processes are made before. Ours trains in the faster of bfloat16 and float32, and the
    reference in float32, or in float16 on CUDA. Ours saves the last model with the optimiser's state and the best one;
    the reference saves weights only.
    """
    amp = bench.precisions[-1]
    last = bench.make_trainer(amp, in_process=False)
    block = training_block(last.state.model.backbone.num_blocks)
    inside = bench.selecting_after(block).make_trainer(amp, in_process=False)
    trainers = {"": last, f", selection after block {block}": inside}
    reference = ReferenceEpoch(bench, last)
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in (*trainers, "reference")}
    for _ in range(1 + bench.sizes.epoch_repeats):
        for way, trainer in trainers.items():
            trainer.state.epoch, trainer.state.step, trainer.state.best = 0, 0, {}
            seconds[way].append(run_ours(trainer))
        seconds["reference"].append(reference())
    title = f"{bench.cfg.MODEL.TRANSFORMER_TYPE}, {precision_name(amp)}, {len(bench.data.train)} samples"
    for way in trainers:
        for part in (*PARTS, "whole"):
            # The first epoch warms up.
            ours, theirs = (Timing(tuple(one[part] for one in seconds[side][1:])) for side in (way, "reference"))
            yield timing_row(f"{part}, {title}{way}", ours, theirs)
