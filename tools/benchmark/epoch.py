"""A whole epoch: training, evaluation of every feature, saving."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from engine.train import Trainer
from tools.benchmark.build import Bench, Sizes
from tools.benchmark.reference import ranking, training
from tools.benchmark.timing import Row, StepClock, Timing, time_row

PARTS = ("train", "evaluate", "save")


class PeersEpoch:
    """Train from JPEGs, then for each feature one pass over queries and gallery, distances and the loop, then save."""

    def __init__(self, bench: Bench, like: Trainer) -> None:
        self.bench = bench
        self.trainer = bench.make_peers_trainer(like)
        self.train_loader = bench.make_peers_loader(like)
        self.eval_loader = bench.make_peers_eval_loader(like)

    def __call__(self) -> dict[str, float]:
        """Seconds by part."""
        clock = StepClock(self.bench.device)
        for images, pid, camera in self.train_loader:
            self.trainer.step(images, pid, camera)
        clock.mark("train")
        self.scores = {pattern: self._score(pattern) for pattern in self.trainer.model.descriptor_names}
        clock.mark("evaluate")
        torch.save(self.trainer.model.state_dict(), self.bench.folder / "peers.pth")
        clock.mark("save")
        return clock.seconds()

    def _score(self, pattern: str) -> float:
        """mAP of one feature."""
        split, number = self.bench.data.test, len(self.bench.data.test.query)
        features = training.encode(self.trainer.model, self.eval_loader, pattern, self.bench.device).numpy()
        distance = ranking.squared_distances(features[:number], features[number:])
        labels = (labels[of] for of in (split.query, split.gallery) for labels in (split.pids, split.groups))
        return ranking.evaluate(distance, *labels)[0]


def run_ours(trainer: Trainer) -> dict[str, float]:
    """Seconds of `Trainer.fit` of one epoch, by part: what comes after the evaluation is the saving."""
    clock = StepClock(trainer.device)
    evaluate = trainer.evaluate

    def timed_evaluate(model: torch.nn.Module) -> dict:
        clock.mark("train")
        record = evaluate(model)
        clock.mark("evaluate")
        return record

    trainer.evaluate = timed_evaluate
    try:
        trainer.fit()
    finally:
        trainer.evaluate = evaluate
    clock.mark("save")
    return clock.seconds()


def measure_epoch(bench: Bench, sizes: Sizes, *, early: bool = False) -> Iterator[Row]:
    """Epochs in turn; what is made once (store, loaders, workers) is made before.

    Ours is in bfloat16, the peers' in float32, on a card trained in float16.
    Ours saves the optimiser's state, too, and the best model beside the last one; the peers' saves weights alone.
    With `early`, a model of ours that selects inside the backbone is measured beside the same peers, who cannot.
    """
    trainers = {"": bench.make_trainer("bf16")}
    if early:
        trainers[f", SDTPS after block {sizes.early_block}"] = bench.selecting_after(sizes.early_block).make_trainer(
            "bf16"
        )
    peers = PeersEpoch(bench, trainers[""])
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in (*trainers, "peers")}
    for repetition in range(sizes.epoch_repeats + 1):
        for way, trainer in trainers.items():
            trainer.state.epoch, trainer.state.step, trainer.state.best = 0, 0, {}
            seconds[way].append(run_ours(trainer))
        seconds["peers"].append(peers())
        if not repetition:  # the first one warms up
            for of_way in seconds.values():
                of_way.clear()
    title = f"{bench.cfg.MODEL.TRANSFORMER_TYPE}, bf16, {len(bench.data.train)} triplets"
    for way in trainers:
        for part in (*PARTS, "whole"):
            ours, theirs = (
                Timing(tuple(sum(of.values()) if part == "whole" else of[part] for of in seconds[side]))
                for side in (way, "peers")
            )
            yield time_row("epoch", f"{part}, {title}{way}", ours, theirs)
