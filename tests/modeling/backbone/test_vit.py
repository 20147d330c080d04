"""The backbone equals timm's own forward pass, CLIP's written out, and plain arithmetic."""

import pytest
import torch

from modeling.backbone.architectures import ARCHITECTURES, Architecture
from modeling.selection import Selection
from tests.helpers.backbone import make_backbone
from utils.errors import UserError


def make(name="ViT-Test", **options):
    torch.manual_seed(0)
    return make_backbone(name, **{"img_size": (64, 32), **options}).eval()


def batch(size=2, hw=(64, 32)):
    torch.manual_seed(1)
    return torch.randn(size, 3, 3, *hw), torch.arange(size)


@pytest.mark.parametrize(
    ("hw", "stride", "grid"),
    [((64, 32), None, (4, 2)), ((32, 64), None, (2, 4)), ((64, 32), (12, 12), (5, 2)), ((64, 32), (16, 8), (4, 3))],
)
def test_grid_of_any_shape_and_stride(hw, stride, grid):
    backbone = make(img_size=hw, stride=stride)
    assert backbone.grid == grid and backbone.num_patches == grid[0] * grid[1]
    assert backbone(*batch(hw=hw)).shape == (2, 3, 1 + grid[0] * grid[1], 32)


@pytest.mark.parametrize("name", ["ViT-Test", "ViT-Test-CLIP"])
def test_three_modalities_in_one_pass_are_timm_three_times(name):
    backbone = make(name)
    images, camera = batch()
    tokens = backbone(images, camera)
    for m in range(3):
        expected = backbone.vit.forward_features(images[:, m])
        if backbone.proj is not None:
            expected = backbone.proj(expected)
        torch.testing.assert_close(tokens[:, m], expected)


def test_sie_goes_on_the_class_token_of_clip_and_on_all_tokens_of_others():
    for name, touched in (("ViT-Test-CLIP", 1), ("ViT-Test", 9)):
        backbone = make(name, num_cameras=3, sie_coe=2.0)
        backbone.vit.norm_pre = (
            torch.nn.LayerNorm(32, elementwise_affine=False) if backbone.is_clip else torch.nn.Identity()
        )
        images, _ = batch()
        camera = torch.tensor([2, 0])
        with_sie, _ = backbone.embed(images, camera)
        backbone.vit.norm_pre, norm = torch.nn.Identity(), backbone.vit.norm_pre
        table, backbone.sie_embed = backbone.sie_embed, None
        expected, _ = backbone.embed(images, camera)
        rows = 2.0 * table[torch.tensor([2, 2, 2, 0, 0, 0])]
        expected[:, :touched] += rows.unsqueeze(1)
        torch.testing.assert_close(with_sie, norm(expected))


def test_unknown_camera_is_named_once_and_counted_as_in_the_file_names():
    backbone = make(num_cameras=2)
    backbone.check_cameras([0, 1, 1])
    with pytest.raises(UserError, match=r"camera 3, 8 .*MODEL\.SIE_CAMERA: False"):
        backbone.check_cameras([0, 7, 2])
    make().check_cameras([99])


def test_every_parameter_gets_a_gradient():
    backbone = make("ViT-Test-CLIP", num_cameras=2, stride=(12, 12)).train()
    backbone(*batch()).pow(2).sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]


def test_recomputing_activations_changes_nothing():
    results = []
    for grad_checkpointing in (False, True):
        backbone = make(grad_checkpointing=grad_checkpointing).train()
        tokens = backbone(*batch())
        tokens.pow(2).sum().backward()
        results.append((tokens, [p.grad for p in backbone.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_published_size_of_clip_vit_b_16():
    with torch.device("meta"):
        backbone = make_backbone("ViT-B-16", img_size=(256, 128))
    assert sum(p.numel() for p in backbone.parameters()) == 86_140_416
    assert (backbone.embed_dim, backbone.grid, backbone.num_blocks) == (512, (16, 8), 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_bse_patch16_224"}, "Near names: .*vit_base_patch16"),
        ({"name": "resnet18"}, "resnet18"),
        ({"img_size": (60, 32), "name": "ViT-Test", "stride": (20, 20)}, "may not exceed the patch"),
        ({"img_size": (8, 8)}, "may not exceed the patch|cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("name", "hw", "grid", "prefix", "width"),
    [
        ("vit_base_patch16_224", (256, 128), (16, 8), 1, 768),
        ("vit_small_patch16_224", (256, 128), (16, 8), 1, 384),
        ("deit_base_patch16_224", (128, 256), (8, 16), 1, 768),
        ("vit_small_patch14_dinov2", (252, 126), (18, 9), 1, 384),
        ("vit_small_patch14_reg4_dinov2", (252, 126), (18, 9), 5, 384),  # four register tokens
        ("vit_small_patch16_dinov3", (256, 128), (16, 8), 5, 384),  # rotary, four register tokens
        ("eva02_small_patch14_224", (252, 126), (18, 9), 1, 384),  # rotary
        ("vit_base_patch16_siglip_224", (256, 128), (16, 8), 0, 768),  # no class token
        ("vit_base_patch16_clip_224", (256, 128), (16, 8), 1, 768),
    ],
)
def test_timm_models_at_full_size(name, hw, grid, prefix, width):
    with torch.device("meta"):
        backbone = make_backbone(name, img_size=hw, num_cameras=2)
        tokens = backbone(torch.empty(2, 3, 3, *hw), torch.zeros(2, dtype=torch.int64))
    assert (backbone.grid, backbone.num_prefix_tokens, backbone.embed_dim) == (grid, prefix, width)
    assert tokens.shape == (2, 3, 1 + grid[0] * grid[1], width)


SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("timm_name", "kwargs", "hw"),
    [
        ("vit_small_patch14_reg4_dinov2", SMALL, (56, 28)),
        ("vit_small_patch16_dinov3", SMALL, (64, 32)),
        ("eva02_small_patch14_224", SMALL, (56, 28)),
        ("vit_base_patch16_siglip_224", SMALL, (64, 32)),
    ],
)
def test_global_and_patches_are_timms_and_every_parameter_learns(monkeypatch, timm_name, kwargs, hw):
    monkeypatch.setitem(ARCHITECTURES, "small", Architecture(timm_name, kwargs))
    backbone = make("small", img_size=hw)
    images, camera = batch(hw=hw)
    tokens = backbone(images, camera)
    prefix = backbone.num_prefix_tokens
    expected = backbone.vit.forward_features(images.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(tokens[:, :, 1:], expected[:, :, prefix:])
    global_ = expected[:, :, 0] if prefix else expected.mean(dim=2)
    torch.testing.assert_close(tokens[:, :, 0], global_)
    tokens.square().mean().backward()
    assert not [n for n, p in backbone.named_parameters() if p.grad is None]


def keep_all(tokens, present, info):
    """Reduce nothing."""
    nothing = Selection(indices=(), score=(), weights=None, parts={"present": present})
    return tokens[:, :, 1:], nothing


@pytest.mark.parametrize("name", ["ViT-Test", "ViT-Test-CLIP"])
def test_stopping_and_resuming_is_the_whole(name):
    backbone = make(name, num_cameras=2)
    images, camera = batch()
    resumed, selection, _ = backbone.resume(backbone(images, camera, stop=1), {"1": keep_all}, "kept")
    torch.testing.assert_close(resumed, backbone(images, camera))
    assert selection.parts["present"] == "kept"
