"""The parameter groups match literal tables of their members, rates and decays."""

import pytest
import torch
from torch import nn

from solver.param_groups import build_param_groups

RATES = {
    "base_lr": 1.0,
    "backbone_lr": 0.1,
    "weight_decay": 0.5,
    "weight_decay_bias": 0.25,
    "bias_lr_factor": 2.0,
    "large_fc_lr": False,
    "layer_decay": 1.0,
}


class Toy(nn.Module):
    """A toy has a backbone of two blocks, a fusion with attention, and two heads with frozen neck biases."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"embed": nn.Linear(2, 2), "block1": nn.Linear(2, 2), "block2": nn.Linear(2, 2)})
        self.fusion = nn.MultiheadAttention(2, 1)
        self.heads = nn.ModuleDict()
        for name in ("ori", "moe"):
            head = {"neck": nn.BatchNorm1d(2), "classifier": nn.Linear(2, 3, bias=False)}
            self.heads[name] = nn.ModuleDict(head)
            head["neck"].bias.requires_grad_(False)


def build(model, **options):
    """Return {group: (names of its parameters, its rate, its decay)}."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_param_groups(model.named_parameters(), **RATES | options)
    for group in groups:
        assert group["lr"] == group["base_lr"]
    return {g["name"]: ([names[id(p)] for p in g["params"]], g["base_lr"], g["weight_decay"]) for g in groups}


def test_rules_apply_in_their_order():
    blocks = ("embed", "block1", "block2")
    assert build(Toy()) == {
        # Biases of the backbone have the backbone's rate and the weights' decay.
        "backbone": ([f"backbone.{block}.{kind}" for block in blocks for kind in ("weight", "bias")], 0.1, 0.5),
        "bias": (["fusion.in_proj_bias", "fusion.out_proj.bias"], 2.0, 0.25),
        "classifier": (["heads.ori.classifier.weight", "heads.moe.classifier.weight"], 1.0, 0.5),
        "rest": (
            ["fusion.in_proj_weight", "fusion.out_proj.weight", "heads.ori.neck.weight", "heads.moe.neck.weight"],
            1.0,
            0.5,
        ),
    }


def test_large_fc_lr_doubles_the_classifiers_alone():
    plain, doubled = build(Toy()), build(Toy(), large_fc_lr=True)
    assert doubled.pop("classifier")[1] == 2.0
    plain.pop("classifier")
    assert doubled == plain


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_trainable_parameter_is_in_one_group(layer_decay):
    model = Toy()
    model.backbone["embed"].requires_grad_(False)
    options = {"layer_decay": layer_decay, "layer_of": lambda name: int("block1" in name), "num_layers": 1}
    grouped = [name for names, *_ in build(model, **options).values() for name in names]
    assert sorted(grouped) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert not any("embed" in name or name.endswith("neck.bias") for name in grouped)


def test_a_frozen_backbone_has_no_group():
    model = Toy()
    model.backbone.requires_grad_(False)
    assert list(build(model)) == ["bias", "classifier", "rest"]


def test_layers_decay_towards_the_input():
    layers = {"embed": 0, "block1": 1, "block2": 2}
    found = build(Toy(), layer_decay=0.5, num_layers=2, layer_of=lambda name: layers[name.split(".")[1]])
    assert {name: (rate, decay) for name, (_, rate, decay) in found.items()} == {
        "backbone_0": (0.025, 0.5),  # 0.1 x 0.5^2
        "backbone_1": (0.05, 0.5),
        "backbone_2": (0.1, 0.5),
        "bias": (2.0, 0.25),
        "classifier": (1.0, 0.5),
        "rest": (1.0, 0.5),
    }
    assert found["backbone_1"][0] == ["backbone.block1.weight", "backbone.block1.bias"]


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"layer_decay is 0\.5: layer_of must give"):
        build(Toy(), layer_decay=0.5)
    with pytest.raises(ValueError, match=r"layer_of\('backbone.embed.weight'\) is 3, outside 0 to 2"):
        build(Toy(), layer_decay=0.5, num_layers=2, layer_of=lambda name: 3)


def test_an_optimizer_accepts_the_groups():
    optimizer = torch.optim.Adam(build_param_groups(Toy().named_parameters(), **RATES))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 2.0, 1.0, 1.0]
