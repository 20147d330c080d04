"""Probes show what a configuration leads to, for the test that every key acts.

Each probe returns plain data, tensors, or nests of them; those of whole runs also take a folder.
"""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

import test_net
import train_net
from data.build import build_augmentation, build_data, build_eval_loader, build_normalization, build_train_loader
from engine.build import build_evaluator, build_trainer
from engine.precision import resolve_device, resolve_precision
from engine.run_folder import RunFolder
from modeling import build_loss, build_model
from solver import build_optimizer, build_schedule
from tests.helpers.batches import labelled
from tests.helpers.runs import records
from utils.errors import UserError

CPU = torch.device("cpu")


def digest(found):
    """Hash plain data, arrays and nests of them, to the bit."""
    if isinstance(found, torch.Tensor):
        found = found.detach().numpy()
    if hasattr(found, "tobytes"):
        found = (found.dtype.str, found.shape, hashlib.sha256(found.tobytes()).hexdigest())
    elif isinstance(found, dict):
        found = sorted((key, digest(value)) for key, value in found.items())
    elif isinstance(found, (list, tuple)):
        found = [digest(item) for item in found]
    elif isinstance(found, set):
        found = sorted(found)
    return hashlib.sha256(repr(found).encode()).hexdigest()


def make_model(cfg):
    torch.manual_seed(0)
    return build_model(cfg, num_classes=5, num_cameras=2)


def make_inputs(cfg):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 3, *cfg.INPUT.SIZE_TRAIN, generator=generator), torch.tensor([0, 1, 0, 1])


def train_once(cfg):
    """Return a model after one backward pass, as in the second epoch, with its output and losses."""
    model = make_model(cfg)
    model.start_epoch(1)  # in the first one, annealing leaves no gradient to the score
    torch.manual_seed(2)
    output = model(*make_inputs(cfg))
    losses = build_loss(cfg)(output, labelled([0, 0, 1, 1]))
    sum(losses.values()).backward()
    return model, output, losses


def weights(cfg):
    return make_model(cfg).state_dict()


def trainable(cfg):
    return {name for name, parameter in make_model(cfg).named_parameters() if parameter.requires_grad}


def features(cfg):
    return train_once(cfg)[1].features


def losses(cfg):
    return train_once(cfg)[2]


def gradients(cfg):
    return {name: p.grad for name, p in train_once(cfg)[0].named_parameters() if p.grad is not None}


def block_batches(cfg):
    """Return the batch sizes that a block of the backbone sees in a training step, recomputation included."""
    model, seen = make_model(cfg), []
    model.backbone.vit.blocks[0].register_forward_pre_hook(lambda _block, inputs: seen.append(len(inputs[0])))
    model(*make_inputs(cfg)).embedding.sum().backward()
    return seen


def embedding(cfg):
    """Embed four samples, of which the second lacks NI."""
    present = torch.ones(4, 3, dtype=torch.bool)
    present[1, 1] = False
    with torch.no_grad():
        return make_model(cfg).eval()(*make_inputs(cfg), present).embedding


def augmented(cfg):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 3, *cfg.INPUT.SIZE_TRAIN), dtype=torch.uint8, generator=generator)
    augment, present = build_augmentation(cfg), torch.ones(8, 3, dtype=torch.bool)
    return augment(images, augment.drop_modalities(present, generator), generator)


def normalized(cfg):
    images = torch.full((1, 3, 3, *cfg.INPUT.SIZE_TEST), 100, dtype=torch.uint8)
    return build_normalization(cfg)(images, torch.ones(1, 3, dtype=torch.bool))


def samples(cfg):
    """List the samples without their folders, with queries and groups."""
    data = build_data(cfg)
    listed = [
        [(sample.name, sample.pid, sample.camera, sample.scene) for sample in part]
        for part in (data.train, data.test.samples, data.validation.samples if data.validation else ())
    ]
    return listed, data.test.query, data.test.groups


def pixels(cfg):
    data = build_data(cfg)
    return [[path.read_bytes() for path in sample.paths] for sample in (*data.train, *data.test.samples)]


def train_loader(cfg):
    return build_train_loader(cfg, build_data(cfg), CPU)


def order(cfg):
    return [batch.pid for batch in train_loader(cfg)], train_loader(cfg).batch_sampler.batches


def workers(cfg):
    return train_loader(cfg).num_workers


def store_path(cfg):
    return train_loader(cfg).dataset.store.path


def stored_shape(cfg):
    return train_loader(cfg).dataset.store.images.shape


def eval_batches(cfg):
    return [len(batch) for batch in build_eval_loader(cfg, build_data(cfg).test, CPU).batch_sampler]


def optimizer(cfg):
    found = build_optimizer(cfg, make_model(cfg))
    return type(found).__name__, [{**group, "params": len(group["params"])} for group in found.param_groups]


def rates(cfg):
    found = build_optimizer(cfg, make_model(cfg))
    schedule, epochs = build_schedule(cfg, found), []
    for epoch in range(cfg.SOLVER.MAX_EPOCHS):
        schedule.set_epoch(epoch)
        epochs.append([group["lr"] for group in found.param_groups])
    return epochs


def device(cfg):
    try:
        return str(resolve_device(cfg.MODEL.DEVICE))
    except UserError as error:
        return str(error)


def precision(cfg):
    return str(resolve_precision(cfg.SOLVER.AMP, CPU).dtype)


def score(cfg):
    model = make_model(cfg)
    return build_evaluator(cfg, build_data(cfg).test, model, CPU)(model)


def forward(cfg):
    data, model = build_data(cfg), make_model(cfg)
    evaluator = build_evaluator(cfg, data.test, model, CPU)
    trainer = build_trainer(cfg, data, model, CPU, evaluator=evaluator, folder=RunFolder(cfg.OUTPUT_DIR))
    return type(trainer.forward).__name__


def call(script, cfg, folder):
    """Run a script and leave the logging of this process as it is."""
    config = folder / "probe.yml"
    config.write_text(cfg.dump())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__name__, "--config_file", str(config)])
        patch.setattr(script, "setup_logging", lambda *_: None)
        assert script.main() == 0


def run(cfg, folder):
    """Return the name of the run's folder, its records without times, and the epochs of its checkpoints."""
    call(train_net, cfg, folder)
    out = Path(cfg.OUTPUT_DIR)
    epochs = {path.name: torch.load(path, weights_only=True)["epoch"] for path in out.glob("*.pth")}
    return out.name, records(out), epochs


def evaluated(cfg, folder):
    call(test_net, cfg, folder)
    return json.loads((Path(cfg.OUTPUT_DIR) / "test_results.json").read_text())
