"""Write finished runs without training: the files that a report is made from, with chosen metrics."""

import json

import torch

from configs import get_cfg
from engine.checkpoint import LAST
from engine.run_folder import CONFIG, METRICS, RESULTS
from tools.ablate.records import STATE


def evaluation(score):
    """Return what an evaluation records, made from one number."""
    return {name: {"mAP": score + i, "R1": score + 10 + i} for i, name in enumerate(("ori", "sdtps"))}


def write_run(run, score, *, best=None, embedding="sdtps", weight=0.0, epochs=2):
    """Write a finished run whose last mAP is `score` for sdtps and `score - 1` for ori; R1 is 10 higher.

    Args:
        best: the mAP of the best epoch, which is then epoch 1; None means that the last epoch is the best.
        embedding: the descriptor that is the model's embedding.
        weight: the value of the only weight.
    """
    run.folder.mkdir(parents=True)
    cfg = get_cfg(run.variant.config_file, run.argv[2:])
    (run.folder / CONFIG).write_text(cfg.dump())
    scores = {0: score / 10, **{e: score * (0.5 + 0.5 * e / epochs) for e in range(1, epochs)}, epochs: score}
    lines = [
        {
            "epoch": epoch,
            "losses": {"total": 10.0 - value / 10},
            "samples_per_s": 50.0 + epoch,
            "split": "test",
            "eval": evaluation(value - 1),
        }
        for epoch, value in scores.items()
    ]
    (run.folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [(f"last (epoch {epochs})", epochs, score)]
    rows.append(("best (epoch 1, chosen on the test set)", 1 if best else epochs, best or score))
    results = {
        "data_set": cfg.DATASETS.NAMES,
        "headline": embedding,
        "rows": [{"name": name, "epoch": epoch, "eval": evaluation(value - 1)} for name, epoch, value in rows],
        "complexity": {"trainable_params": 437259, "layer_macs": 137474112, "attention_macs": 28755648},
        "samples_per_s": 50.0 + run.seed,
        "peak_memory_mib": 812.5,
        "device": "cpu",
        "versions": {"python": "3.11", "torch": "2.11"},
    }
    (run.folder / RESULTS).write_text(json.dumps(results))
    start = {"time": "2026-01-01 00:00:00 UTC", "commit": "abc", "threads": 1, "device": None}
    (run.folder / STATE).write_text(json.dumps({"starts": [start], "exit_code": 0, "message": ""}))
    torch.save({"model": {"weight": torch.tensor(weight)}}, run.folder / LAST)
