"""SDTPS inside the backbone equals the same parts called one by one."""

import pytest
import torch

from configs import get_cfg
from modeling import build_loss, build_model
from modeling.complexity import count_complexity
from modeling.selection import SCORES, TokenInfo
from tests.helpers.batches import labelled
from utils.errors import UserError

TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]  # 8 patches
SDTPS_ON = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.75]
TWO_STAGES = ["MODEL.TRANSFORMER_TYPE", "ViT-Micro-8", "MODEL.SDTPS_BLOCK", [1, 2]]
MICRO = ["MODEL.TRANSFORMER_TYPE", "ViT-Micro-8", "INPUT.SIZE_TRAIN", [128, 64], "INPUT.SIZE_TEST", [128, 64]]


def make(*opts, base=TINY):
    torch.manual_seed(0)
    cfg = get_cfg(None, [*base, *SDTPS_ON, *opts])
    return build_model(cfg, num_classes=5, num_cameras=2).eval()


def batch(size=3, size_hw=(64, 32)):
    torch.manual_seed(1)
    return torch.randn(size, 3, 3, *size_hw), torch.arange(size) % 2


def embed(model, images, camera):
    """Compute what enters the first block, (B * M, 1 + N, W), with timm's own parts."""
    vit = model.backbone.vit
    tokens = vit._pos_embed(vit.patch_embed(images.flatten(0, 1)))
    if model.backbone.sie_embed is not None:
        tokens = tokens + model.backbone.sie_embed[camera].repeat_interleave(3, dim=0)[:, None]
    return vit.norm_pre(tokens)


@pytest.mark.parametrize("opts", [[], ["MODEL.SIE_CAMERA", True]])
def test_one_stage_equals_blocks_selection_blocks(opts):
    model = make("MODEL.SDTPS_BLOCK", 1, *opts)
    images, camera = batch()
    first, second = model.backbone.vit.blocks
    tokens = first(embed(model, images, camera)).unflatten(0, (3, 3))
    selected, selection = model.reducers["1"](tokens)
    tokens = torch.cat([tokens[:, :, :1], selected], dim=2).flatten(0, 1)  # 1 + 3 + 1
    tokens = model.backbone.vit.norm(second(tokens)).unflatten(0, (3, 3))
    output = model(images, camera)
    assert selected.shape == (3, 3, 4, 32)
    torch.testing.assert_close(output.features["ori"], tokens[:, :, 0].flatten(1))
    torch.testing.assert_close(output.features["sdtps"], tokens[:, :, 1:].mean(dim=2).flatten(1))
    assert all(map(torch.equal, output.selection.indices, selection.indices))


def test_two_stages_with_ratios_of_their_own():
    opts = ["MODEL.SDTPS_BLOCK", [1, 2], "MODEL.SDTPS_SPARSE_RATIO", [0.5, 0.75], "MODEL.SDTPS_AGGR_RATIO", [0.5, 0.4]]
    model = make(*opts, base=MICRO)
    images, camera = batch(2, (128, 64))
    stages, blocks = model.reducers, model.backbone.vit.blocks
    assert list(stages) == ["1", "2"]
    tokens = blocks[0](embed(model, images, camera)).unflatten(0, (2, 3))
    one, first = stages["1"](tokens)
    assert one.shape[2] == 32 + 1 and first.indices[0].shape[1] == 64  # of 128: 64 kept, 32 aggregated, 1 extra
    tokens = blocks[1](torch.cat([tokens[:, :, :1], one], dim=2).flatten(0, 1)).unflatten(0, (2, 3))
    two, _ = stages["2"](tokens)
    assert two.shape[2] == 9 + 1  # of 33: floor(0.4 x 0.75 x 33) = 9
    tokens = model.backbone.vit.norm(blocks[2](torch.cat([tokens[:, :, :1], two], dim=2).flatten(0, 1)))
    output = model(images, camera)
    torch.testing.assert_close(output.features["sdtps"], tokens[:, 1:].mean(dim=1).unflatten(0, (2, 3)).flatten(1))
    assert torch.equal(output.selection.indices[2], first.indices[2]), "the first stage's, among the image's patches"


def test_the_other_branches_work_on_what_is_left():
    model = make("MODEL.SDTPS_BLOCK", 1, "MODEL.HDM", True, "MODEL.GLOBAL_LOCAL", True)
    images, camera = batch()
    tokens, _, _ = model.backbone.resume(model.encode(images, camera).tokens, model.reducers)
    assert tokens.shape == (3, 3, 1 + 4, 32)
    tokens = model.transforms["pife"](tokens)
    output = model(images, camera)
    torch.testing.assert_close(output.features["ori"], tokens[:, :, 0].flatten(1))
    torch.testing.assert_close(output.features["moe"], model.branches["moe"].hdm(tokens).flatten(1))


@pytest.mark.parametrize("block", [1, [1]])
def test_every_trainable_parameter_gets_a_gradient(block):
    opts = ["MODEL.SDTPS_BLOCK", block, "MODEL.SDTPS_USE_GUMBEL", True]
    model = make(*opts).train()
    output = model(*batch(4))
    loss = build_loss(get_cfg(None, [*TINY, *SDTPS_ON, *opts]))
    sum(loss(output, labelled([0, 0, 1, 1])).values()).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert all(".aggregation." in name and name.endswith(".mlp.3.bias") for name in without)  # as behind the backbone


def test_it_makes_the_model_cheaper():
    """After the first of three blocks 48 + 1 tokens of 128 go on; behind the backbone nothing is saved."""
    baseline = get_cfg(None, MICRO)
    whole = count_complexity(build_model(baseline, num_classes=5, num_cameras=2), size_hw=(128, 64))
    behind, inside = (count_complexity(make("MODEL.SDTPS_BLOCK", k, base=MICRO), size_hw=(128, 64)) for k in (0, 1))
    assert inside.layer_macs < 0.7 * whole.layer_macs < whole.layer_macs < behind.layer_macs
    # Q K^T and A V of the blocks: 129 tokens in the first, 50 in the others.
    assert inside.attention_macs == 3 * 2 * 96 * (129**2 + 2 * 50**2)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.SDTPS_BLOCK", 2], r"SDTPS_BLOCK is 2, but ViT-Test has 2 blocks\. Allowed: 1 to 1"),
        (["MODEL.SDTPS_BLOCK", [2, 1]], "ascending list"),
        (["MODEL.SDTPS_BLOCK", [0, 1]], "ascending list"),
        *(
            ([*TWO_STAGES, "MODEL.SDTPS_SCORE", score], f"SDTPS_SCORE is '{score}'.*only the first stage sees patches")
            for score, part in SCORES.items()
            if "grid" in part.needs
        ),
        (["MODEL.SDTPS_BLOCK", []], "or a list with one for each stage"),
        (["MODEL.SDTPS_SPARSE_RATIO", [0.5, 0.5]], "one for each stage"),
        (["MODEL.SDTPS_BLOCK", 1, "MODEL.SDTPS_SPARSE_RATIO", [1.5]], r"Allowed: \(0, 1\]"),
    ],
)
def test_bad_stages_are_refused(opts, message):
    with pytest.raises(UserError, match=message):
        make(*opts)


@pytest.mark.parametrize("score", [name for name, part in SCORES.items() if "grid" not in part.needs])
def test_a_score_that_needs_no_places_selects_twice(score):
    model = make(*TWO_STAGES, "MODEL.SDTPS_AGGREGATION", "merge", *(["MODEL.SDTPS_SCORE", score] * (score != "sdtps")))
    images, camera = batch()
    whole = model(images, camera, None, TokenInfo(index=torch.arange(3)))
    assert whole.selection.indices[0].shape == (3, 16)
    alone = model(images[2:], camera[2:], None, TokenInfo(index=torch.tensor([2])))
    torch.testing.assert_close(alone.embedding, whole.embedding[2:], rtol=1e-5, atol=1e-5)


def test_a_rotating_backbone_is_refused():
    eva = [
        "MODEL.TRANSFORMER_TYPE",
        "eva02_tiny_patch14_224",
        "INPUT.SIZE_TRAIN",
        [28, 28],
        "INPUT.SIZE_TEST",
        [28, 28],
    ]
    with pytest.raises(UserError, match="rotates its tokens"), torch.device("meta"):
        build_model(get_cfg(None, [*eva, *SDTPS_ON, "MODEL.SDTPS_BLOCK", 4]), num_classes=5, num_cameras=2)


def test_an_absent_modality_scores_at_no_stage():
    model = make("MODEL.SDTPS_BLOCK", 1, "MODEL.MISSING", "drop")
    assert list(model.reducers) == ["1"]
    images, camera = batch()
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    other = torch.where(present[:, :, None, None, None], images, torch.randn_like(images))
    found, expected = model(other, camera, present), model(images, camera, present)
    for name in expected.descriptors:
        torch.testing.assert_close(found.descriptors[name], expected.descriptors[name], rtol=0, atol=0)
