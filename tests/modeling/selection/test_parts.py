"""Every score works with every aggregation, after the backbone and inside it, and with everything beside it."""

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.selection import AGGREGATIONS, SCORES, TokenInfo

TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 64], "INPUT.SIZE_TEST", [64, 64]]  # 16 patches


def make(score, aggregation, *opts):
    torch.manual_seed(0)
    base = [*TINY, "MODEL.USE_SDTPS", True, "MODEL.SDTPS_SCORE", score, "MODEL.SDTPS_AGGREGATION", aggregation]
    return build_model(get_cfg(None, [*base, *opts]), num_classes=4, num_cameras=2)


COUNTS = {"learned": 3, "none": 8, "mean": 1, "merge": 3}
"""How many tokens 8 kept patches of 16 become: floor(0.4 x 0.5 x 16) is 3."""


def batch(model, size=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 3, 64, 64, generator=generator)
    mask = torch.randint(256, (size, 3, 64, 64), generator=generator).byte() if "coverage" in model.needs else None
    return images, torch.arange(size) % 2, None, model.describe(torch.arange(size), mask)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("score", SCORES)
def test_a_pair_trains(score, aggregation, block):
    model, shapes = make(score, aggregation, "MODEL.SDTPS_BLOCK", block).train(), []
    (selection,) = model.selections
    selection.register_forward_hook(lambda _module, _inputs, output: shapes.append(output[0].shape))
    output = model(*batch(model))
    assert shapes == [(4, 3, COUNTS[aggregation] + 1, 32)] and selection.num_outputs == COUNTS[aggregation] + 1
    torch.stack([logits.square().mean() for logits in output.logits.values()]).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients) and output.embedding.isfinite().all()
    assert [indices.shape for indices in output.selection.indices] == [(4, 8)] * 3
    assert output.selection.score[0].shape == (4, 16) and output.selection.score[0].dtype == torch.float32


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("score", SCORES)
def test_an_image_gives_the_same_in_every_batch(score, aggregation, block):
    """Also where it lacks modalities, which take no part."""
    model = make(score, aggregation, "MODEL.SDTPS_BLOCK", block, "MODEL.MISSING", "drop").eval()
    images, camera, _, info = batch(model, 3)
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    images *= present[:, :, None, None, None]
    with torch.inference_mode():
        whole = model(images, camera, present, info)
        for part in (slice(0, 2), slice(2, 3)):
            coverage = None if info.coverage is None else info.coverage[part]
            alone = model(
                images[part], camera[part], present[part], TokenInfo(index=info.index[part], coverage=coverage)
            )
            for m in range(3):
                rows = present[part, m]
                assert torch.equal(alone.selection.indices[m][rows], whole.selection.indices[m][part][rows])
            for name, descriptor in whole.descriptors.items():
                torch.testing.assert_close(alone.descriptors[name], descriptor[part], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_it_works_beside_demos_branches_with_absent_modalities(score):
    demo = ["MODEL.HDM", True, "MODEL.ATM", True, "MODEL.GLOBAL_LOCAL", True, "MODEL.MISSING", "drop"]
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [True, True, False]])
    for block in (0, 1):
        model = make(score, "none", "MODEL.SDTPS_BLOCK", block, *demo).train()
        images, camera, _, info = batch(model)
        output = model(images * present[:, :, None, None, None], camera, present, info)
        features = output.features["sdtps"].unflatten(1, (3, -1))
        assert output.embedding.isfinite().all() and (features[~present] == 0).all() and features[present].any()


def test_a_global_that_is_absent_does_not_change_the_others():
    """What an absent modality shows may change no score of those that are present, where it takes no part."""
    present = torch.tensor([[True, False, True]] * 2)
    for score in SCORES:
        model = make(score, "none", "MODEL.SDTPS_BLOCK", 1, "MODEL.MISSING", "drop").eval()
        images, camera, _, info = batch(model, 2)
        other = images.clone()
        other[:, 1] = torch.randn(3, 64, 64)
        with torch.inference_mode():
            one, two = (model(version, camera, present, info).selection.score for version in (images, other))
        for m in (0, 2):
            assert torch.equal(one[m], two[m]), score
