"""The composed model has the right branches, heads and descriptors, also where modalities are absent."""

import itertools

import pytest
import torch

from configs import get_cfg
from modeling import build_loss, build_model
from tests.helpers.batches import labelled, output_with
from utils.errors import UserError

TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
SDTPS = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.75]


def make(*opts, num_classes=5, num_cameras=2):
    torch.manual_seed(0)
    return build_model(get_cfg(None, [*TINY, *opts]), num_classes=num_classes, num_cameras=num_cameras)


def batch(size=3):
    torch.manual_seed(1)
    return torch.randn(size, 3, 3, 64, 32), torch.arange(size) % 2


@pytest.mark.parametrize(
    ("opts", "heads", "descriptors", "embedding"),
    [
        ([], ["ori"], {"ori": 96}, "ori"),
        (["MODEL.DIRECT", 0], ["ori_RGB", "ori_NI", "ori_TI"], {"ori": 96}, "ori"),
        (SDTPS, ["ori", "sdtps"], {"ori": 96, "sdtps": 96, "all": 192}, "sdtps"),
        ([*SDTPS, "TEST.FEAT", "all"], ["ori", "sdtps"], {"ori": 96, "sdtps": 96, "all": 192}, "all"),
        ([*SDTPS, "MODEL.DIRECT", 0, "TEST.FEAT", "ori"], ["ori_RGB", "ori_NI", "ori_TI", "sdtps"],
         {"ori": 96, "sdtps": 96, "all": 192}, "ori"),
    ],
)  # fmt: skip
def test_branches_heads_and_descriptors(opts, heads, descriptors, embedding):
    model = make(*opts)
    for training in (True, False):
        output = model.train(training)(*batch())
        assert list(output.features) == list(output.logits) == heads
        assert {name: descriptor.shape[1] for name, descriptor in output.descriptors.items()} == descriptors
        torch.testing.assert_close(output.embedding, output.descriptors[embedding])
        assert {logits.shape for logits in output.logits.values()} == {(3, 5)}
        assert (output.selection is not None) == (opts[:1] == SDTPS[:1])


def test_ori_feature_is_the_globals_in_order():
    model = make().eval()
    images, camera = batch()
    tokens = model.encode(images, camera).tokens
    torch.testing.assert_close(model(images, camera).embedding, torch.cat([tokens[:, m, 0] for m in range(3)], 1))


def test_sdtps_feature_is_the_mean_of_its_tokens_per_modality():
    model = make(*SDTPS).eval()
    images, camera = batch()
    tokens, _ = model.branches["sdtps"].selection(model.encode(images, camera).tokens)
    torch.testing.assert_close(model(images, camera).features["sdtps"], torch.cat(tokens.mean(2).unbind(1), 1))


def test_neck_feat_after_is_the_normalised_feature():
    before, after = make(*SDTPS).eval(), make(*SDTPS, "TEST.NECK_FEAT", "after").eval()
    for model in (before, after):
        for head in model.heads.values():
            head.neck.running_mean.fill_(0.5)
    plain, necked = before(*batch()), after(*batch())
    expected = (plain.features["sdtps"] - 0.5) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(necked.embedding, expected)
    torch.testing.assert_close(necked.features["sdtps"], plain.features["sdtps"])


@pytest.mark.parametrize("opts", [SDTPS, [*SDTPS, "MODEL.SIE_CAMERA", True], [*SDTPS, "MODEL.SDTPS_BLOCK", 1]])
def test_an_absent_modality_is_an_empty_image(opts):
    model = make(*opts).eval()
    images, camera = batch()
    emptied = images.clone()
    emptied[:, 0] = emptied[:, 2] = 0
    tokens, absent = model.encode(images, camera), torch.tensor([True, False, True])
    found = model.decode(model.without(tokens, absent, camera, model.encode_blank(images)))
    torch.testing.assert_close(found.embedding, model(emptied, camera).embedding)


PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]]).bool()
DROP = ["MODEL.MISSING", "drop"]
BRANCHES = {
    "direct": [],
    "apart": ["MODEL.DIRECT", False],
    "pife": ["MODEL.GLOBAL_LOCAL", True],
    "hdm": ["MODEL.HDM", True],
    "atmoe": ["MODEL.HDM", True, "MODEL.ATM", True],
    "sdtps": SDTPS,
    "gumbel": [*SDTPS, "MODEL.SDTPS_USE_GUMBEL", True, "MODEL.SDTPS_DETACH_ATTENTION", False],
    "inside": [*SDTPS, "MODEL.SDTPS_BLOCK", 1],
    "everything": [*SDTPS, "MODEL.DIRECT", 0, "MODEL.GLOBAL_LOCAL", 1, "MODEL.HDM", 1, "MODEL.ATM", 1],
}


def step(opts, images, camera, present, training=True):
    """Return everything that a model gives, its losses and the gradients of its parameters."""
    model = make(*opts).train(training)
    torch.manual_seed(2)
    output = model(images, camera, present)
    pid = torch.tensor([0, 0, 1, 1])
    losses = build_loss(get_cfg(None, [*TINY, *opts]))(output, labelled(pid))
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**output.descriptors, **losses, **output.features, **gradients}


@pytest.mark.parametrize("opts", BRANCHES.values(), ids=BRANCHES)
@pytest.mark.parametrize("training", [True, False])
def test_pixels_of_a_dropped_modality_have_no_influence(opts, training):
    opts = [*opts, *DROP, "TEST.NECK_FEAT", "after" if training else "before"]
    images, camera = batch(4)
    other = torch.where(PRESENT[:, :, None, None, None], images, 10 * torch.randn_like(images))
    expected, found = step(opts, images, camera, PRESENT, training), step(opts, other, camera, PRESENT, training)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("opts", BRANCHES.values(), ids=BRANCHES)
def test_dropping_nothing_changes_nothing(opts):
    images, camera = batch(4)
    model, dropping = make(*opts).eval(), make(*opts, *DROP).eval()
    everyone = torch.ones(4, 3, dtype=torch.bool)
    expected = model(images, camera).descriptors
    for present in (None, everyone):
        for name, descriptor in dropping(images, camera, present).descriptors.items():
            torch.testing.assert_close(descriptor, expected[name])


@pytest.mark.parametrize("neck_feat", ["before", "after"])
def test_a_dropped_modality_is_zero_in_every_descriptor(neck_feat):
    """Image 2 has TI alone. ori and sdtps have a part per modality, moe one per subset; R, N and RN are empty."""
    model = make(*SDTPS, "MODEL.HDM", True, *DROP, "TEST.NECK_FEAT", neck_feat).eval()
    for head in model.heads.values():
        head.neck.running_mean.fill_(0.5)  # the neck moves zeros
    found = model(*batch(4), PRESENT).descriptors
    for name, empty in (("ori", [0, 1]), ("sdtps", [0, 1]), ("moe", [0, 1, 3])):
        parts = found[name][2].unflatten(0, (-1, 32))
        assert [i for i, part in enumerate(parts) if not part.any()] == empty, name
    everything = torch.cat([found["ori"], found["moe"], found["sdtps"]], dim=1)
    assert torch.equal(found["all"], everything)


def test_with_experts_the_subsets_without_a_modality_are_zero_in_every_head():
    model = make("MODEL.HDM", True, "MODEL.ATM", True, *DROP, "TEST.NECK_FEAT", "after").eval()
    model.heads["moe"].neck.running_mean.fill_(0.5)
    parts = model(*batch(4), PRESENT).descriptors["moe"][2].unflatten(0, (4, 7, 8))  # heads, subsets, channels
    assert all((part.any(dim=1) == torch.tensor([0, 0, 1, 0, 1, 1, 1])).all() for part in parts)


def test_a_head_of_one_modality_counts_the_samples_that_have_it():
    opts = ["MODEL.DIRECT", False, *DROP]
    model = make(*opts)
    output = model(*batch(4), PRESENT)
    assert {name: present.tolist() for name, present in output.present.items()} == {
        "ori_RGB": [True, True, False, True],
        "ori_NI": [True, False, False, True],
        "ori_TI": [True, True, True, False],
    }
    loss, pid = build_loss(get_cfg(None, [*TINY, *opts])), torch.tensor([0, 0, 1, 1])
    found = loss(output, labelled(pid))
    for name, present in output.present.items():
        alone = output_with({name: output.features[name][present]}, {name: output.logits[name][present]})
        for kind, value in loss(alone, labelled(pid[present])).items():
            torch.testing.assert_close(found[kind], value)
    assert not make(*SDTPS, *DROP)(*batch(4), PRESENT).present, "joint heads count every sample"


def test_a_lone_modality_scores_with_its_own_global():
    model = make(*SDTPS, *DROP, "MODEL.SDTPS_USE_PREDICTOR", False).eval()
    images, camera = batch(4)
    tokens = model.encode(images, camera).tokens
    own = torch.nn.functional.cosine_similarity(tokens[2, 2, 1:], tokens[2, 2, :1], dim=1)  # image 2 has TI alone
    expected = (own - own.min()) / (own.max() - own.min())
    torch.testing.assert_close(model(images, camera, PRESENT).selection.score[2][2], expected)


SELECTIONS = {"": [], **{name: BRANCHES[name] for name in ("sdtps", "gumbel", "inside")}}
FUSIONS = {"": [], **{name: BRANCHES[name] for name in ("hdm", "atmoe")}}


@pytest.mark.parametrize("missing", ["zero", "drop"])
@pytest.mark.parametrize(("fusion", "selection"), list(itertools.product(FUSIONS, SELECTIONS)))
def test_a_batch_of_one_works_in_every_combination(fusion, selection, missing):
    switches = [*FUSIONS[fusion], *SELECTIONS[selection], "MODEL.MISSING", missing]
    for direct, pife, training in itertools.product((True, False), repeat=3):
        model = make(*switches, "MODEL.DIRECT", direct, "MODEL.GLOBAL_LOCAL", pife).train(training)
        output = model(*batch(1), torch.tensor([[True, False, True]]))
        width = {"ori": 96} | ({"moe": 224} if fusion else {}) | ({"sdtps": 96} if selection else {})
        width |= {"all": sum(width.values())} if len(width) > 1 else {}
        assert {name: descriptor.shape for name, descriptor in output.descriptors.items()} == {
            k: (1, w) for k, w in width.items()
        }
        assert all(descriptor.isfinite().all() for descriptor in output.descriptors.values())
        sum(logits.square().sum() for logits in output.logits.values()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_permuting_the_batch_permutes_the_embeddings():
    model = make(*SDTPS).eval()
    images, camera = batch(4)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(images[order], camera[order]).embedding, model(images, camera).embedding[order])


@pytest.mark.parametrize("opts", [[], SDTPS, [*SDTPS, "MODEL.SDTPS_USE_GUMBEL", True], ["MODEL.SIE_CAMERA", True]])
def test_every_trainable_parameter_gets_a_gradient(opts):
    cfg = get_cfg(None, [*TINY, *opts])
    model = make(*opts)
    images, camera = batch(4)
    output = model(images, camera)
    sum(build_loss(cfg)(output, labelled([0, 0, 1, 1])).values()).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # The last bias of the aggregation's MLP shifts a whole row of logits, which the softmax over that row undoes: its
    # gradient is rounding, and may be 0.
    assert all(
        name.startswith("branches.sdtps.selection.aggregation.") and name.endswith(".mlp.3.bias") for name in without
    )
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        f"heads.{h}.neck.bias" for h in model.heads
    }


def test_the_same_seed_builds_the_same_model():
    first, second = make(*SDTPS).state_dict(), make(*SDTPS).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_aggregation_to_nothing_is_refused():
    with pytest.raises(UserError, match=r"of 8 patches 0\.40 would come out"):
        make("MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.1)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ATM", True], r"MODEL\.HDM is False"),
        (["TEST.FEAT", "moe"], r"MODEL\.HDM is False"),
        (["TEST.FEAT", "sdtps"], r"MODEL\.USE_SDTPS is False"),
        (["MODEL.HDM", True, "MODEL.ATM", True, "MODEL.HEAD", 5], "32 channels"),
        (["MODEL.FREEZE_BLOCKS", 3], "has 2 blocks"),
        (["MODEL.FREEZE_BLOCKS", 1, "MODEL.FROZEN", True], "the whole backbone is left as it is"),
    ],
)
def test_illegal_combinations_are_refused(opts, message):
    with pytest.raises(UserError, match=message):
        make(*opts)


def test_heads_without_experts_are_warned_of():
    with pytest.warns(UserWarning, match="MODEL.HEAD is 8.*MODEL.ATM is False"):
        make("MODEL.HEAD", 8)


CAMERA = ["MODEL.SIE_CAMERA", True]


def full_size(*opts):
    with torch.device("meta"):
        return build_model(get_cfg(None, opts), num_classes=171, num_cameras=4)


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_published_parameter_counts():
    """ViT-B-16 has 171 identities and 4 cameras here. SDTPS adds its own parameters and those of its head."""
    baseline = trainable(full_size(*CAMERA))
    assert baseline == 86_407_680  # 86.41 M
    pife = [*CAMERA, "MODEL.GLOBAL_LOCAL", True]
    hdm = [*pife, "MODEL.HDM", True]
    published = {87.99: pife, 95.96: hdm, 98.79: [*hdm, "MODEL.ATM", True]}  # rows B, C and D of DeMo's ablation
    for millions, opts in published.items():
        assert trainable(full_size(*opts)) / 1e6 == pytest.approx(millions, abs=0.006)
    with_sdtps = full_size(*CAMERA, "MODEL.USE_SDTPS", True)
    assert trainable(with_sdtps) == baseline + 365_157 + 264_192
    assert with_sdtps.heads["sdtps"].feature_dim == 1536
