"""Every key changes something visible: the model, a batch, the optimiser, the score, or the files of a run.

A new key needs one line in ACTS: what shows that it acts, two of its values, and the keys without which it is refused.
Each probe is called twice with the first value, so that something random proves nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from configs import get_cfg
from configs.keys import DEFAULTS
from modeling import build_model
from tests.helpers.backbone import make_backbone
from tests.helpers.probes import (
    augmented,
    block_batches,
    device,
    digest,
    embedding,
    eval_batches,
    evaluated,
    features,
    forward,
    gradients,
    losses,
    normalized,
    optimizer,
    order,
    pixels,
    precision,
    rates,
    run,
    samples,
    score,
    store_path,
    stored_shape,
    train_once,
    trainable,
    weights,
    workers,
)
from tests.helpers.trees import write_image, write_manifest, write_rgbnt100, write_rgbnt201
from utils.errors import UserError

BASE = {
    "MODEL.TRANSFORMER_TYPE": "ViT-Test",
    "MODEL.DEVICE": "cpu",
    "INPUT.SIZE_TRAIN": [64, 32],
    "INPUT.SIZE_TEST": [64, 32],
    "DATASETS.NAMES": "RGBNT201",
    "DATASETS.ROOT_DIR": "{root}",
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.NUM_INSTANCE": 2,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.MAX_EPOCHS": 5,
    "SOLVER.WARMUP_EPOCHS": 2,
    "OUTPUT_DIR": "{out}",
}


@dataclass(frozen=True)
class Acts:
    """How it is shown that a key acts."""

    probe: Callable
    first: Any
    second: Any
    context: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    """Keys that must have the same value."""


ON = {"MODEL.USE_SDTPS": True, "MODEL.SDTPS_AGGR_RATIO": 0.75}
KEPT = {"MODEL.USE_SDTPS": True, "MODEL.SDTPS_AGGREGATION": "none"}
GUMBEL = {**ON, "MODEL.SDTPS_USE_GUMBEL": True}
MOE = {"MODEL.HDM": True}
SHORT = {"SOLVER.MAX_EPOCHS": 2, "SOLVER.WARMUP_EPOCHS": 0, **ON}
DRAWN = {
    "DATASETS.NAMES": "synthetic",
    "SYNTHETIC.TRAIN_IDS": 2,
    "SYNTHETIC.TEST_IDS": 2,
    "SYNTHETIC.TRAIN_IMAGES": 8,
    "SYNTHETIC.TEST_IMAGES": 8,
    "SYNTHETIC.SIZE": [64, 32],
}
NOISE = {"DATASETS.NAMES": "manifest", "DATASETS.ROOT_DIR": "{noise}"}
LISTED = {"DATASETS.NAMES": "manifest", "DATASETS.ROOT_DIR": "{manifest}"}

ACTS = {
    "MODEL.DEVICE": Acts(device, "cpu", "cuda:99"),
    "MODEL.TRANSFORMER_TYPE": Acts(weights, "ViT-Test", "ViT-Test-CLIP"),
    "MODEL.PRETRAIN_PATH_T": Acts(weights, "", "{pretrained}"),
    "MODEL.STRIDE_SIZE": Acts(embedding, [0, 0], [8, 8]),
    "MODEL.SIE_CAMERA": Acts(embedding, False, True),
    "MODEL.SIE_COE": Acts(embedding, 1.0, 3.0, {"MODEL.SIE_CAMERA": True}),
    "MODEL.GRAD_CHECKPOINTING": Acts(block_batches, False, True),
    "MODEL.DROP_PATH": Acts(features, 0.0, 0.5),
    "MODEL.FROZEN": Acts(trainable, False, True),
    "MODEL.FREEZE_BLOCKS": Acts(trainable, 0, 1),
    "MODEL.DIRECT": Acts(weights, True, False),
    "MODEL.GLOBAL_LOCAL": Acts(embedding, False, True),
    "MODEL.HDM": Acts(embedding, False, True),
    "MODEL.ATM": Acts(embedding, False, True, MOE),
    "MODEL.HEAD": Acts(embedding, 4, 8, {**MOE, "MODEL.ATM": True}),
    "MODEL.MISSING": Acts(embedding, "zero", "drop"),
    "MODEL.ID_LOSS_WEIGHT": Acts(losses, 1.0, 0.25),
    "MODEL.TRIPLET_LOSS_WEIGHT": Acts(losses, 1.0, 0.0),
    "MODEL.NO_MARGIN": Acts(losses, False, True),
    "MODEL.IF_LABELSMOOTH": Acts(losses, True, False),
    "MODEL.USE_SDTPS": Acts(embedding, False, True, {"MODEL.SDTPS_AGGR_RATIO": 0.4}),
    "MODEL.SDTPS_SCORE": Acts(embedding, "sdtps", "centre", ON),
    "MODEL.SDTPS_AGGREGATION": Acts(embedding, "learned", "none", {"MODEL.USE_SDTPS": True}),
    "MODEL.SDTPS_BLOCK": Acts(embedding, 0, [1], ON),
    "MODEL.SDTPS_SPARSE_RATIO": Acts(embedding, 0.5, [0.75], ON),
    "MODEL.SDTPS_AGGR_RATIO": Acts(embedding, 0.75, [0.25], ON),
    "MODEL.SDTPS_EXTRA_TOKEN": Acts(embedding, True, False, ON),
    "MODEL.SDTPS_GATE": Acts(embedding, False, True, KEPT),
    "MODEL.SDTPS_ANNEAL_EPOCHS": Acts(features, 0, 2, ON),
    "MODEL.SDTPS_BETA": Acts(embedding, 0.25, 0.5, ON),
    "MODEL.SDTPS_USE_GUMBEL": Acts(gradients, False, True, ON),
    "MODEL.SDTPS_GUMBEL_TAU": Acts(gradients, 1.0, 5.0, GUMBEL),
    "MODEL.SDTPS_GUMBEL_SAMPLE": Acts(features, False, True, GUMBEL),
    "MODEL.SDTPS_LOSS_WEIGHT": Acts(losses, 1.0, 0.5, ON),
    "MODEL.SDTPS_USE_PREDICTOR": Acts(embedding, True, False, ON),
    "MODEL.SDTPS_MASK_AGGREGATION": Acts(gradients, True, False, {**GUMBEL, "MODEL.SDTPS_GUMBEL_SAMPLE": True}),
    "MODEL.SDTPS_DETACH_ATTENTION": Acts(gradients, True, False, ON),
    "INPUT.SIZE_TRAIN": Acts(stored_shape, [64, 32], [32, 32], also=("INPUT.SIZE_TEST",)),
    "INPUT.SIZE_TEST": Acts(embedding, [64, 32], [32, 32], also=("INPUT.SIZE_TRAIN",)),
    "INPUT.PROB": Acts(augmented, 0.5, 0.0),
    "INPUT.RE_PROB": Acts(augmented, 0.5, 1.0),
    "INPUT.PADDING": Acts(augmented, 10, 0),
    "INPUT.PIXEL_MEAN": Acts(normalized, [0.5, 0.5, 0.5], [0.4, 0.5, 0.5]),
    "INPUT.PIXEL_STD": Acts(normalized, [0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
    "INPUT.SYNC_AUG": Acts(augmented, True, False),
    "INPUT.MODALITY_DROPOUT": Acts(augmented, 0.0, 0.5),
    "DATASETS.NAMES": Acts(samples, "RGBNT201", "RGBNT100"),
    "DATASETS.ROOT_DIR": Acts(samples, "{root}", "{other}"),
    "DATASETS.PROTOCOL": Acts(samples, "camera", "scene", LISTED),
    "DATASETS.VAL_IDS": Acts(samples, 0, 2),
    "SYNTHETIC.TRAIN_IDS": Acts(samples, 2, 3, DRAWN),
    "SYNTHETIC.TEST_IDS": Acts(samples, 2, 3, DRAWN),
    "SYNTHETIC.TRAIN_IMAGES": Acts(samples, 8, 9, DRAWN),
    "SYNTHETIC.TEST_IMAGES": Acts(samples, 8, 9, DRAWN),
    "SYNTHETIC.SIZE": Acts(pixels, [64, 32], [32, 16], DRAWN),
    "SYNTHETIC.DIFFICULTY": Acts(pixels, 0.25, 1.0, DRAWN),
    "SYNTHETIC.OFF_CENTRE": Acts(pixels, 0.0, 0.5, DRAWN),
    "SYNTHETIC.SEED": Acts(pixels, 0, 1, DRAWN),
    "DATALOADER.NUM_WORKERS": Acts(workers, 0, 1),
    "DATALOADER.SAMPLER": Acts(
        order, "softmax_triplet", "softmax", {"DATALOADER.NUM_INSTANCE": 8, "SOLVER.IMS_PER_BATCH": 16}
    ),
    "DATALOADER.NUM_INSTANCE": Acts(order, 2, 4, {"SOLVER.IMS_PER_BATCH": 8}),
    "DATALOADER.CACHE": Acts(store_path, "auto", "off"),
    "DATALOADER.CACHE_DIR": Acts(store_path, "", "{other}/cache"),
    "SOLVER.OPTIMIZER_NAME": Acts(optimizer, "Adam", "SGD"),
    "SOLVER.MAX_EPOCHS": Acts(rates, 5, 6),
    "SOLVER.SCHEDULE": Acts(rates, "cosine", "original"),
    "SOLVER.BASE_LR": Acts(optimizer, 3.5e-4, 1e-4),
    "SOLVER.BACKBONE_LR": Acts(optimizer, 5e-6, 1e-4),
    "SOLVER.LAYER_DECAY": Acts(optimizer, 1.0, 0.5),
    "SOLVER.BIAS_LR_FACTOR": Acts(optimizer, 2.0, 1.0, ON),
    "SOLVER.LARGE_FC_LR": Acts(optimizer, False, True),
    "SOLVER.MOMENTUM": Acts(optimizer, 0.9, 0.5, {"SOLVER.OPTIMIZER_NAME": "SGD"}),
    "SOLVER.MARGIN": Acts(losses, 0.3, 0.5),
    "SOLVER.WEIGHT_DECAY": Acts(optimizer, 1e-4, 0.0),
    "SOLVER.WEIGHT_DECAY_BIAS": Acts(optimizer, 1e-4, 0.0, ON),
    "SOLVER.WARMUP_EPOCHS": Acts(rates, 2, 0),
    "SOLVER.WARMUP_START": Acts(rates, 0.1, 0.5),
    "SOLVER.MIN_LR_FACTOR": Acts(rates, 0.001, 0.1),
    "SOLVER.LR_NOISE": Acts(rates, 0.0, 0.67),
    "SOLVER.CLIP_GRAD_NORM": Acts(run, 0.0, 0.01, SHORT),
    "SOLVER.IMS_PER_BATCH": Acts(order, 4, 8),
    "SOLVER.AMP": Acts(precision, "auto", "bf16"),
    "SOLVER.ACCUMULATE": Acts(block_batches, 1, 2),
    "SOLVER.COMPILE": Acts(forward, False, True),
    "SOLVER.SEED": Acts(order, 1111, 7),
    "SOLVER.LOG_PERIOD": Acts(run, 10, 1, SHORT),
    "SOLVER.EVAL_PERIOD": Acts(run, 1, 2, SHORT),
    "SOLVER.CHECKPOINT_PERIOD": Acts(run, 1, 2, SHORT),
    "TEST.IMS_PER_BATCH": Acts(eval_batches, 128, 3),
    "TEST.WEIGHT": Acts(evaluated, "{checkpoint}", "{another_checkpoint}"),
    "TEST.FEAT": Acts(embedding, "auto", "ori", ON),
    "TEST.NECK_FEAT": Acts(embedding, "before", "after"),
    "TEST.FEAT_NORM": Acts(score, True, False, {**NOISE, "MODEL.GLOBAL_LOCAL": True}),
    "TEST.MISS": Acts(score, "nothing", "rn", NOISE),
    "TEST.FLIP": Acts(score, False, True, NOISE),
    "TEST.RE_RANKING": Acts(score, False, True, NOISE),
    "TEST.UNTRAINED": Acts(run, True, False, SHORT),
    "OUTPUT_DIR": Acts(run, "{out}", "{other}/elsewhere", SHORT),
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """The paths that values and contexts name in braces."""
    base = tmp_path_factory.mktemp("ground")
    root = write_rgbnt100(write_rgbnt201(base / "root"))
    other = write_rgbnt201(base / "other", train_ids=5)
    manifest = write_manifest(base / "listed")
    header, *rows = (row.split(",") for row in manifest.read_text().splitlines())
    rows = [[*row[:3], str(i % 3), *row[4:]] for i, row in enumerate(rows)]  # a scene is not the camera
    manifest.write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    noise = write_manifest(base / "noise", test_ids=6)  # nothing in it identifies anybody, so no score is perfect
    for i, path in enumerate(sorted(noise.parent.glob("*/*.jpg"))):
        write_image(path, i, colour=(128, 128, 128))
    torch.save(make_backbone("ViT-Test", img_size=(64, 32)).vit.state_dict(), base / "pretrained.pth")
    paths = {"root": root, "other": other, "manifest": manifest, "noise": noise}
    paths["pretrained"] = base / "pretrained.pth"
    for name, seed in (("checkpoint", 3), ("another_checkpoint", 4)):
        torch.manual_seed(seed)
        model = build_model(configure(paths | {"out": base}, {}), num_classes=6, num_cameras=2)
        paths[name] = base / f"{name}.pth"
        torch.save({"model": model.state_dict()}, paths[name])
    return paths


@pytest.fixture(scope="module")
def seen():
    """The results of probes, for configurations that several keys start from."""
    return {}


def configure(paths, settings):
    """Read BASE changed by `settings`, with the paths filled in."""
    filled = {k: v.format(**paths) if isinstance(v, str) else v for k, v in (BASE | settings).items()}
    return get_cfg(None, [word for pair in filled.items() for word in pair])


@pytest.mark.parametrize("key", DEFAULTS | ACTS)
def test_the_key_acts(key, ground, seen, tmp_path, request):
    assert key in ACTS, f"{key} is new: add a line to ACTS that shows what it changes"
    entry = ACTS[key]
    request.addfinalizer(lambda: logging.getLogger().handlers.clear())

    def look(settings, attempt):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        cfg = configure(ground | {"out": folder / "out"}, settings)
        return digest(entry.probe(cfg, folder) if entry.probe in (run, evaluated) else entry.probe(cfg))

    first, second = (entry.context | dict.fromkeys((key, *entry.also), value) for value in (entry.first, entry.second))
    same = repr((entry.probe.__name__, sorted((DEFAULTS | BASE | first).items())))
    if same not in seen:
        seen[same] = look(first, 1)
        assert look(first, 2) == seen[same], "the probe differs by itself"
    assert look(second, 3) != seen[same], f"{key} changes nothing that {entry.probe.__name__} sees"


SELECTION_KEYS = [key for key in ACTS if key.startswith("MODEL.SDTPS_")]
BESIDE = [(key, ACTS[key].second) for key in ACTS if key.startswith("MODEL.") and ACTS[key].probe is not device]
BESIDE = [(key, value) for key, value in BESIDE if not str(value).startswith(("{", "ViT"))]
BESIDE += [("MODEL.SDTPS_SPARSE_RATIO", 1.0), ("MODEL.SDTPS_BETA", 0.0), ("MODEL.SDTPS_LOSS_WEIGHT", 0.0)]
INERT_BESIDE = {
    # The attention passes on no gradient either way: nothing before it is trained, or no loss depends on it. Only
    # knowledge about gradients could refuse these pairs, and the configuration has it for Gumbel alone.
    "MODEL.SDTPS_DETACH_ATTENTION": [("MODEL.FROZEN", True), ("MODEL.SDTPS_LOSS_WEIGHT", 0.0)],
}


def everything(cfg):
    """Give everything that a training pass and an evaluation of a model show."""
    model, output, batch_losses = train_once(cfg)
    gradients_by_name = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return model.state_dict(), output.features, output.descriptors, batch_losses, gradients_by_name, embedding(cfg)


@pytest.mark.slow
@pytest.mark.parametrize("key", SELECTION_KEYS)
@pytest.mark.filterwarnings("ignore:MODEL.HEAD")
def test_a_key_of_sdtps_acts_beside_every_other_key_or_is_refused(key, seen):
    """Change each other key of the model, too: a run that ignores one of its keys would look like a result."""

    def look(settings):
        name = repr((everything.__name__, sorted((DEFAULTS | BASE | settings).items())))
        if name not in seen:
            seen[name] = digest(everything(get_cfg(None, [word for pair in settings.items() for word in pair])))
        return seen[name]

    entry, inert = ACTS[key], []
    fixed = {k: v for k, v in BASE.items() if not str(v).startswith("{")}
    for other, value in BESIDE:
        if other == key:
            continue
        both = fixed | ACTS[other].context | entry.context | {other: value}
        if "MODEL.SDTPS_AGGREGATION" in (key, other):  # 'none' is refused beside a ratio other than the default
            both.pop("MODEL.SDTPS_AGGR_RATIO", None)
        try:
            get_cfg(None, [word for pair in (both | {key: entry.second}).items() for word in pair])
            first = look(both | {key: entry.first})
        except UserError:
            continue
        if look(both | {key: entry.second}) == first:
            inert.append((other, value))
    assert inert == INERT_BESIDE.get(key, []), f"{key} does nothing beside one of these"
