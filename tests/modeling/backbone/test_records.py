"""What the backbone records equals what timm's own blocks compute with fused attention off."""

import pytest
import torch

from configs import get_cfg
from modeling import build_model
from modeling.backbone.architectures import ARCHITECTURES, Architecture
from modeling.backbone.records import RECORDS, Recorder
from tests.helpers.backbone import make_backbone
from utils.errors import UserError

SIZE = (64, 32)
CLIP = {"embed_dim": 32, "depth": 3, "num_heads": 2}
REGISTERS = {"embed_dim": 32, "depth": 3, "num_heads": 2, "reg_tokens": 4}
KINDS = {
    "plain": Architecture("vit_tiny_patch16_224", {**CLIP, "qkv_bias": False}),
    "clip": Architecture("vit_base_patch16_clip_quickgelu_224", CLIP, proj_dim=24),
    "registers": Architecture("vit_small_patch14_reg4_dinov2", {**REGISTERS, "patch_size": 16}),
    "normed": Architecture("vit_tiny_patch16_224", {**CLIP, "qk_norm": True}),
}


@pytest.fixture
def backbone(request, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(ARCHITECTURES, "kind", KINDS[request.param])
    backbone = make_backbone("kind", img_size=SIZE).eval()
    for parameter in backbone.parameters():  # the initial weights would make all attention even
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def batch(size=2):
    return torch.randn(size, 3, 3, *SIZE, generator=torch.Generator().manual_seed(1)), torch.zeros(size).long()


def watched(backbone, run):
    """Return attention (B, H, L, L), keys and values (B, H, L, d) of each block, as timm makes them in `run`."""
    maps, keys, projections = [], [], []
    for block in backbone.vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].double()))
        block.attn.k_norm.register_forward_hook(lambda _, __, output: keys.append(output.double()))
        block.attn.qkv.register_forward_hook(lambda _, __, output: projections.append(output.double()))
    with torch.inference_mode():
        run()
    heads = backbone.vit.blocks[0].attn.num_heads
    split = [output.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4) for output in projections]
    return maps, keys, [part[2] for part in split]


def expected(name, maps, keys, values, prefix):
    """Compute a record with plain loops over the blocks, from the formulas in float64."""
    length = maps[0].shape[-1]
    if name == "attention":
        found = maps[-1][:, :, 0]
    elif name == "value_attention":
        found = maps[-1][:, :, 0] * values[-1].pow(2).sum(dim=-1).sqrt()
    elif name == "rollout":
        row = torch.zeros(len(maps[0]), 1, length, dtype=torch.float64)
        row[:, :, 0] = 1
        for attention in reversed(maps):  # the class token looks back through the blocks
            row = row @ (0.5 * attention.mean(dim=1) + 0.5 * torch.eye(length, dtype=torch.float64))
        found = row
    elif name == "head_rollout":
        row = torch.zeros(*maps[0].shape[:2], 1, length, dtype=torch.float64)
        row[..., 0] = 1
        for attention in reversed(maps):
            row = row @ attention
        found = row[:, :, 0]
    else:
        return keys[-1].mean(dim=1)[:, prefix:]
    return found[..., prefix:]


@pytest.mark.parametrize("backbone", KINDS, indirect=True)
@pytest.mark.parametrize("stop", [1, 2, None])
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_equals_what_the_block_computes(backbone, stop, name):
    images, camera = batch()
    recorder = Recorder([name], backbone.num_prefix_tokens)
    with torch.inference_mode():
        backbone(images, camera, stop=stop, recorder=recorder)
    found = recorder.read(3)[name]
    maps, keys, values = watched(backbone, lambda: backbone(images, camera, stop=stop))
    wanted = expected(name, maps, keys, values, backbone.num_prefix_tokens).unflatten(0, (2, 3))
    assert found.dtype == torch.float32 and found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["plain"], indirect=True)
@pytest.mark.parametrize("name", RECORDS)
def test_under_autocast_a_record_stays_in_float32(backbone, name):
    images, camera = batch()
    recorder = Recorder([name], backbone.num_prefix_tokens)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone(images, camera, stop=1, recorder=recorder)
    plain = Recorder([name], backbone.num_prefix_tokens)
    with torch.inference_mode():
        backbone(images, camera, stop=1, recorder=plain)
    record, wanted = recorder.read(3)[name], plain.read(3)[name]
    assert record.dtype == torch.float32
    torch.testing.assert_close(record, wanted, rtol=0.1, atol=0.1 * wanted.abs().max().item())


def make(score, *opts, backbone="ViT-Micro-8", size=(128, 64)):
    torch.manual_seed(0)
    base = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_SCORE", score, "MODEL.TRANSFORMER_TYPE", backbone]
    cfg = get_cfg(None, [*base, "INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size, *opts])
    return build_model(cfg, num_classes=4, num_cameras=2)


def reached(model, selection, *inputs):
    """Return what was recorded for `selection` while `model` runs."""
    infos = []
    handle = selection.register_forward_pre_hook(lambda _, arguments: infos.append(arguments[2]))
    with torch.inference_mode():
        model(*inputs)
    handle.remove()
    return infos[0].recorded


@pytest.mark.parametrize("block", [1, 2, 0])
def test_a_selection_gets_what_was_recorded_right_before_it(block):
    """The selection after block 1 or 2 of three, or after the last one."""
    model = make("ats", "MODEL.SDTPS_BLOCK", block, "MODEL.SDTPS_AGGREGATION", "merge").eval()
    images, camera = torch.randn(2, 3, 3, 128, 64), torch.zeros(2).long()
    records = reached(model, model.selections[0], images, camera)
    assert records.keys() == {"value_attention", "keys"}
    maps, keys, values = watched(model.backbone, lambda: model.backbone(images, camera, stop=block or None))
    assert len(maps) == (block or 3)
    for name, record in records.items():
        wanted = expected(name, maps, keys, values, 1).unflatten(0, (2, 3))
        torch.testing.assert_close(record.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("score", "name"), [("attention", "attention"), ("ats", "value_attention")])
def test_parts_of_a_batch_record_what_the_whole_does(score, name):
    whole = make(score, "MODEL.SDTPS_BLOCK", 1).train()
    parts = make(score, "MODEL.SDTPS_BLOCK", 1, "SOLVER.ACCUMULATE", 2).train()
    images, camera = torch.randn(5, 3, 3, 128, 64), torch.arange(5) % 2
    record = parts.encode(images, camera).records[name]
    assert record.shape == (5, 3, 3, 128)
    torch.testing.assert_close(record, whole.encode(images, camera).records[name])
    assert not torch.allclose(record, whole.encode(images.flip(0), camera).records[name])


@pytest.mark.parametrize("block", [0, 1])
def test_records_of_an_absent_modality_are_those_of_an_empty_image(block):
    model = make("rollout", "MODEL.SDTPS_BLOCK", block, "MODEL.SIE_CAMERA", True).eval()
    images, camera = torch.randn(2, 3, 3, 128, 64), torch.tensor([0, 1])
    absent = torch.tensor([False, True, False])
    with torch.inference_mode():
        found = model.without(model.encode(images, camera), absent, camera, model.encode_blank(images))
        images[:, 1] = 0
        wanted = model.encode(images, camera)
    torch.testing.assert_close(found.tokens, wanted.tokens)
    torch.testing.assert_close(found.records["rollout"], wanted.records["rollout"])


def test_a_second_stage_sees_the_sizes_of_merged_tokens(monkeypatch):
    """The class token attends to a merged token as to all of its patches, also in what is recorded."""
    opts = ["MODEL.SDTPS_BLOCK", [1, 2], "MODEL.SDTPS_AGGREGATION", "merge", "MODEL.SDTPS_SPARSE_RATIO", 1.0]
    model = make("sdtps", *opts).eval()
    biases = []
    monkeypatch.setattr(Recorder, "look", lambda *_, bias, is_last: biases.append(bias))
    monkeypatch.setattr(Recorder, "read", lambda *_: {"keys": torch.randn(2, 3, 128 if len(biases) < 2 else 51, 32)})
    with torch.inference_mode():
        model(torch.randn(2, 3, 3, 128, 64), torch.zeros(2).long())
    first, second = biases
    assert first is None
    sizes = second.exp()[:, 0, 0, 1:]  # of the tokens that are not prefix
    torch.testing.assert_close(sizes.sum(dim=1), torch.full((6,), 128.0))


def test_a_second_stage_reads_attention_that_knows_the_sizes():
    """Block 2 attends with log s as a bias; without it the class token would look elsewhere."""
    opts = ["MODEL.SDTPS_BLOCK", [1, 2], "MODEL.SDTPS_AGGREGATION", "merge", "MODEL.SDTPS_SPARSE_RATIO", 0.5]
    model = make("attention", *opts).eval()
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images, camera = torch.randn(2, 3, 3, 128, 64), torch.zeros(2).long()
    found = reached(model, model.reducers["2"], images, camera)["attention"].double()
    chosen = []
    model.reducers["1"].register_forward_hook(lambda _, __, output: chosen.append(output[1]))
    maps, _, _ = watched(model.backbone, lambda: model(images, camera))
    row = maps[1][:, :, 0]
    torch.testing.assert_close(found, row[..., 1:].unflatten(0, (2, 3)), rtol=1e-4, atol=1e-6)
    sizes = torch.nn.functional.pad(chosen[0].sizes.double(), (1, 0), value=1.0).flatten(0, 1).unsqueeze(1)
    without = (row / sizes) / (row / sizes).sum(dim=-1, keepdim=True)
    assert (sizes == 64).any(), "the extra token stands for half of the patches"
    assert not torch.allclose(found, without[..., 1:].unflatten(0, (2, 3)), rtol=0.05)


def test_without_a_class_token_patches_can_be_merged(monkeypatch):
    """Their keys are recorded, those of all tokens, because none of them is prefix."""
    monkeypatch.setitem(ARCHITECTURES, "classless", Architecture("vit_base_patch16_siglip_gap_224", CLIP))
    opts = ["MODEL.SDTPS_BLOCK", 1, "MODEL.SDTPS_AGGREGATION", "merge"]
    model = make("sdtps", *opts, backbone="classless", size=SIZE).eval()
    found = reached(model, model.reducers["1"], *batch())["keys"].double()
    _, keys, _ = watched(model.backbone, lambda: model.backbone(*batch(), stop=1))
    assert found.shape == (2, 3, 8, 16)
    torch.testing.assert_close(found, keys[0].mean(dim=1).unflatten(0, (2, 3)), rtol=1e-4, atol=1e-5)


def test_a_backbone_that_cannot_show_it_is_refused():
    with pytest.raises(UserError, match=r"MODEL\.SDTPS_SCORE is 'attention'.*has no class token"):
        make("attention", backbone="vit_base_patch16_siglip_224", size=(64, 32))
    with pytest.raises(UserError, match=r"MODEL\.SDTPS_AGGREGATION is 'merge'.*do not show it"):
        make("sdtps", "MODEL.SDTPS_AGGREGATION", "merge", backbone="eva02_tiny_patch14_224", size=(56, 28))
    with pytest.raises(UserError, match=r"MODEL\.SDTPS_SCORE is 'rollout'.*do not show it"):
        make("rollout", backbone="eva02_tiny_patch14_224", size=(56, 28))
