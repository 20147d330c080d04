"""Weights of every format give CLIP's own tokens, and a file that does not fit is refused as a whole."""

import pytest
import torch
from safetensors.torch import save_file

from modeling.backbone.pretrained import load_pretrained, resize_position_embedding
from tests.helpers.backbone import make_backbone
from tests.helpers.clip import Archive, clip_tokens, openai_state
from utils.errors import UserError

SIZE = {"width": 32, "depth": 2, "out": 24}


def backbone(hw=(32, 32), **options):
    torch.manual_seed(0)
    return make_backbone("ViT-Test-CLIP", img_size=hw, **options).eval()


@pytest.fixture
def state():
    torch.manual_seed(3)
    return openai_state(side=2, **SIZE)


def save(state, path, kind):
    if kind == "archive":
        torch.jit.script(Archive({k: v.half() for k, v in state.items()})).save(path)
    elif kind == "nested":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif kind == "bare":  # the image tower alone, without its prefix
        torch.save({k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}, path)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "name"), [("archive", "a.pt"), ("nested", "b.pth"), ("bare", "c.pth"), ("safetensors", "d.safetensors")]
)
def test_every_format_gives_clips_tokens(tmp_path, state, kind, name):
    model = backbone()
    report = load_pretrained(model, save(state, tmp_path / name, kind))
    if kind == "archive":
        state = {key: value.half().float() for key, value in state.items()}
    images = torch.randn(2, 3, 3, 32, 32)
    expected = clip_tokens(state, images.flatten(0, 1), heads=2).unflatten(0, (2, 3))
    torch.testing.assert_close(model(images, torch.zeros(2, dtype=torch.int64)), expected, rtol=1e-4, atol=1e-4)
    assert len(report.matched) == len(model.state_dict()) and not report.resized
    assert len(report.ignored) == (0 if kind == "bare" else 5)


def test_position_grid_is_resized_and_the_new_is_reported(tmp_path, state):
    model = backbone((64, 32), num_cameras=4)
    report = load_pretrained(model, save(state, tmp_path / "a.pth", "bare"))
    assert report.resized == ["vit.pos_embed"] and report.missing == ["sie_embed"]
    assert "resized: vit.pos_embed" in report.summary() and "sie_embed" in report.summary()
    embedding = state["visual.positional_embedding"]
    torch.testing.assert_close(model.vit.pos_embed[0, 0], embedding[0])
    rows = embedding[1:].view(2, 2, 32)
    # Bilinear from 2 to 4 rows, edges of pixels aligned: weights 1, 3/4, 1/4, 0 on the first.
    for i, weight in enumerate((1, 0.75, 0.25, 0)):
        torch.testing.assert_close(model.vit.pos_embed[0, 1 + 2 * i], weight * rows[0, 0] + (1 - weight) * rows[1, 0])


def test_resizing_keeps_prefix_tokens_and_a_grid_of_the_same_size():
    embedding = torch.randn(1, 3 + 16, 8)
    torch.testing.assert_close(resize_position_embedding(embedding, (4, 4), 3), embedding)


def test_timm_keeps_the_projection_as_a_head(tmp_path):
    first, second = backbone(), backbone()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_()
    state = {k.removeprefix("vit."): v for k, v in first.state_dict().items()}
    state["head.weight"] = state.pop("proj.weight")
    torch.save(state, tmp_path / "timm.pth")
    load_pretrained(second, str(tmp_path / "timm.pth"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_plain_vit_weights_with_a_classifier(tmp_path):
    first, second = (make_backbone("ViT-Test", img_size=(32, 32)) for _ in range(2))
    state = {k.removeprefix("vit."): v for k, v in first.state_dict().items()} | {"head.weight": torch.ones(5, 32)}
    torch.save({"model": state}, tmp_path / "vit.pth")
    report = load_pretrained(second, str(tmp_path / "vit.pth"))
    assert report.ignored == ["head.weight"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def without(state, part):
    return {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "ln_post"), "2 missing: vit.norm.bias"),
        (lambda s: s | {"visual.attnpool.weight": torch.ones(1)}, "1 unexpected: attnpool.weight"),
        (lambda s: s | {"visual.proj": torch.ones(32, 9)}, r"proj.weight is \(9, 32\) there and \(24, 32\) here"),
        (lambda s: without(s, "resblocks.1"), "12 missing"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path, state, change, message):
    model = backbone()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(change(state), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        load_pretrained(model, str(tmp_path / "w.pth"))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_unreadable_files_are_named(tmp_path, state, name):
    path = tmp_path / name
    with pytest.raises(UserError, match=r"w\.\w+, and there is no such file.*openai/CLIP"):
        load_pretrained(backbone(), str(path))
    save(state, path, "bare" if name.endswith("pth") else "safetensors")
    path.write_bytes(path.read_bytes()[:999])
    with pytest.raises(UserError, match="no readable weight file"):
        load_pretrained(backbone(), str(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no readable weight file"):
        load_pretrained(backbone(), str(path))


def test_code_in_a_file_is_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    torch.save({"x": Malicious()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no readable weight file"):
        load_pretrained(backbone(), str(tmp_path / "w.pth"))
    assert not (tmp_path / "executed").exists()


def test_timm_weights_without_a_network(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no network")

    model = make_backbone("ViT-Test", img_size=(32, 32))
    monkeypatch.setattr("modeling.backbone.pretrained.timm.create_model", offline)
    with pytest.raises(UserError, match=r"cannot be fetched.*MODEL\.PRETRAIN_PATH_T"):
        load_pretrained(model, "timm")
