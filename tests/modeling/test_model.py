"""The composed model: branches, heads, patterns, missing modalities."""

import pytest
import torch

from configs import get_cfg
from modeling import build_loss, build_model
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
    ("opts", "heads", "patterns", "embedding"),
    [
        ([], ["ori"], {"ori": 96}, "ori"),
        (["MODEL.DIRECT", 0], ["ori_RGB", "ori_NI", "ori_TI"], {"ori": 96}, "ori"),
        (SDTPS, ["ori", "sdtps"], {"ori": 96, "sdtps": 96, "all": 192}, "sdtps"),
        ([*SDTPS, "TEST.FEAT", "all"], ["ori", "sdtps"], {"ori": 96, "sdtps": 96, "all": 192}, "all"),
        ([*SDTPS, "MODEL.DIRECT", 0, "TEST.FEAT", "ori"], ["ori_RGB", "ori_NI", "ori_TI", "sdtps"],
         {"ori": 96, "sdtps": 96, "all": 192}, "ori"),
    ],
)  # fmt: skip
def test_branches_heads_and_patterns(opts, heads, patterns, embedding):
    model = make(*opts)
    for training in (True, False):
        output = model.train(training)(*batch())
        assert list(output.features) == list(output.logits) == heads
        assert {name: pattern.shape[1] for name, pattern in output.patterns.items()} == patterns
        torch.testing.assert_close(output.embedding, output.patterns[embedding])
        assert {logits.shape for logits in output.logits.values()} == {(3, 5)}
        assert (output.selection is not None) == (opts[:1] == SDTPS[:1])


def test_ori_feature_is_the_globals_in_order():
    model = make().eval()
    images, camera = batch()
    tokens = model.encode(images, camera)
    torch.testing.assert_close(model(images, camera).embedding, torch.cat([tokens[:, m, 0] for m in range(3)], 1))


def test_sdtps_feature_is_the_mean_of_its_tokens_per_modality():
    model = make(*SDTPS).eval()
    images, camera = batch()
    tokens, _ = model.sdtps(model.encode(images, camera))
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


def test_an_absent_modality_is_an_empty_image():
    model = make(*SDTPS).eval()
    images, camera = batch()
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    emptied = images.clone()
    emptied[1, 1] = emptied[2, 0] = emptied[2, 1] = 0
    torch.testing.assert_close(model(images, camera, present).embedding, model(emptied, camera).embedding)
    images[1, 1] = torch.nan
    assert torch.isfinite(model(images, camera, present).embedding).all()


def test_a_batch_of_one_works_in_either_mode():
    for training in (True, False):
        output = make(*SDTPS).train(training)(*batch(1))
        assert output.embedding.shape == (1, 96) and output.logits["sdtps"].shape == (1, 5)


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
    sum(build_loss(cfg)(output.features, output.logits, torch.tensor([0, 0, 1, 1])).values()).backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # The last bias of the aggregation's MLP shifts a whole row of logits, which the softmax over that row undoes: its
    # gradient is rounding, and may be 0.
    assert all(name.startswith("sdtps.aggregation.") and name.endswith(".mlp.3.bias") for name in without)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        f"heads.{h}.neck.bias" for h in model.heads
    }


def test_the_same_seed_builds_the_same_model():
    first, second = make(*SDTPS).state_dict(), make(*SDTPS).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_aggregation_to_nothing_is_refused():
    with pytest.raises(UserError, match=r"of 8 patches 0\.40 would come out"):
        make("MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.1)


def full_size(*opts):
    with torch.device("meta"):
        return build_model(get_cfg(None, opts), num_classes=171, num_cameras=4)


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_published_parameter_counts():
    """ViT-B-16, 171 identities, 4 cameras: the sums of sdtps.md section 7."""
    baseline = trainable(full_size("MODEL.SIE_CAMERA", True))
    assert baseline == 86_407_680  # 86.41 M
    with_sdtps = full_size("MODEL.SIE_CAMERA", True, "MODEL.USE_SDTPS", True)
    assert trainable(with_sdtps) == baseline + 365_157 + 264_192
    assert with_sdtps.heads["sdtps"].feature_dim == 1536
