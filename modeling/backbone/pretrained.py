"""Pretrained weights into the backbone: OpenAI's archive, plain state dicts, safetensors; all or nothing, reported."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.backbone.vit import ViTBackbone
from utils.errors import UserError
from utils.integrity import find_non_finite, verify_archive

WHERE = (
    "OpenAI's ViT-B-16.pt is linked in the openai/CLIP repository (clip/clip.py); timm and open_clip weights are on "
    "the Hugging Face hub. MODEL.PRETRAIN_PATH_T: '' trains from random weights"
)

# OpenAI's and open_clip's names of an image tower -> this backbone's, in order; the first that matches renames.
CLIP_NAMES: tuple[tuple[str, str], ...] = (
    (r"class_embedding", "vit.cls_token"),
    (r"positional_embedding", "vit.pos_embed"),
    (r"conv1\.weight", "vit.patch_embed.proj.weight"),
    (r"ln_pre\.(\w+)", r"vit.norm_pre.\1"),
    (r"ln_post\.(\w+)", r"vit.norm.\1"),
    (r"proj", "proj.weight"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(\w+)", r"vit.blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)", r"vit.blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(\w+)", r"vit.blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(\w+)", r"vit.blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(\w+)", r"vit.blocks.\1.mlp.fc2.\2"),
)
TEXT_TOWER = re.compile(
    r"(transformer\.|token_embedding\.|ln_final\.|text_projection|positional_embedding$|logit_scale|logit_bias"
    r"|input_resolution|context_length|vocab_size|text\.)"
)
HEADS = re.compile(r"(head|head_dist|pre_logits|fc|attn_pool|mask_token|dist_token|head\.\w+)(\.|$)")
"""Parts of a classifier or of a pre-training task, which ReID has no use for."""
MAY_BE_MISSING = ("sie_embed",)
"""What no pretrained file can hold."""


@dataclass
class LoadReport:
    """The outcome of a load, by the keys of the file and of the backbone."""

    source: str
    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Of the backbone, not in the file, and allowed to be."""
    ignored: list[str] = field(default_factory=list)
    """Of the file: text tower, heads, what was never used."""

    def summary(self) -> str:
        """Say it in one line for the log."""
        resized = f" (resized: {', '.join(self.resized)})" if self.resized else ""
        missing = f", new: {', '.join(self.missing)}" if self.missing else ""
        ignored = f": {few(self.ignored)}" if self.ignored else ""
        return (
            f"Weights from {self.source}: {len(self.matched)} tensors matched{resized}{missing}, "
            f"{len(self.ignored)} ignored{ignored}."
        )


def few(names: list[str]) -> str:
    """List the first of `names`, for a message."""
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"


def misfits(missing: list[str], unexpected: list[str], wrong: list[str]) -> str:
    """Say in one clause what is wrong with the tensors of a file; '' if nothing is."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    return "; ".join(f"{len(names)} {kind}: {few(names)}" for kind, names in kinds if names)


def load_pretrained(backbone: ViTBackbone, source: str) -> LoadReport:
    """Load `source` into `backbone`: a file, or 'timm' for timm's weights of that name.

    Raises:
        UserError: the file is missing, unreadable, or not of this model; the backbone is then unchanged.
    """
    state = _fetch_timm(backbone) if source == "timm" else read_state_dict(Path(source))
    if (spoiled := find_non_finite(state)) is not None:
        raise UserError(
            f"The weights in MODEL.PRETRAIN_PATH_T ({source}) hold nan or inf, in {spoiled}. Download them again."
        )
    report = LoadReport(source)
    own = backbone.state_dict()
    renamed = rename_tower(state, report)
    unexpected = sorted(renamed.keys() - own.keys())
    absent = sorted(own.keys() - renamed.keys())
    report.missing = [key for key in absent if key in MAY_BE_MISSING]
    missing = [key for key in absent if key not in MAY_BE_MISSING]
    wrong = []
    for key in sorted(renamed.keys() & own.keys()):
        value = renamed[key]
        if key == "vit.pos_embed" and value.shape[-1] == own[key].shape[-1]:
            resized = resize_position_embedding(value, backbone.grid, own[key].shape[1] - backbone.num_patches)
            if resized is not value:
                value = resized
                report.resized.append(key)
        if value.shape != own[key].shape:
            wrong.append(f"{key} is {tuple(value.shape)} there and {tuple(own[key].shape)} here")
        renamed[key] = value
        report.matched.append(key)
    problems = misfits(missing, unexpected, wrong)
    if problems:
        raise UserError(
            f"The weights in MODEL.PRETRAIN_PATH_T ({source}) are not of MODEL.TRANSFORMER_TYPE {backbone.name} "
            f"({problems}). Set the one that goes with the other. {WHERE}."
        )
    backbone.load_state_dict({key: renamed.get(key, own[key]) for key in own})
    return report


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file, without executing anything in it.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"MODEL.PRETRAIN_PATH_T is {path}, and there is no such file. {WHERE}.")
    try:
        verify_archive(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise half a dozen kinds on damaged bytes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} (MODEL.PRETRAIN_PATH_T) is no readable weight file: {reason}. Download it again."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors_by_name = isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )
    if not tensors_by_name or not content:
        raise UserError(f"{path} (MODEL.PRETRAIN_PATH_T) holds no state dict of tensors. {WHERE}.")
    return content


def _is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive, which is a zip that holds code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _fetch_timm(backbone: ViTBackbone) -> dict[str, Tensor]:
    try:
        return timm.create_model(backbone.timm_name, pretrained=True).state_dict()
    except Exception as error:  # the hub raises a dozen kinds, most of them for 'no network'
        raise UserError(
            f"timm's weights of {backbone.timm_name} cannot be fetched: {' '.join(str(error).split())[:200]}. Fetch "
            "them where there is a network (timm.create_model(name, pretrained=True)), or set MODEL.PRETRAIN_PATH_T "
            f"to a file. {WHERE}."
        ) from error


def rename_tower(state: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """Return the tensors of the image tower under the names of the backbone, in float32."""
    state = {re.sub(r"^(module|base_model)\.", "", key): value for key, value in state.items()}
    has_visual = any(key.startswith("visual.") for key in state)
    clip = has_visual or "class_embedding" in state
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("visual.")
        if has_visual and not key.startswith("visual."):
            if not TEXT_TOWER.match(key):
                renamed[key] = value  # ends among the unexpected
            else:
                report.ignored.append(key)
        elif clip:
            target = next((re.sub(p, to, name) for p, to in CLIP_NAMES if re.fullmatch(p, name)), name)
            renamed[target] = _clip_shape(target, value).float()
        elif name == "head.weight" and "norm_pre.weight" in state:  # timm keeps CLIP's projection as a bias-free head
            renamed["proj.weight"] = value.float()
        elif HEADS.match(name):
            report.ignored.append(key)
        else:
            name = re.sub(r"^fc_norm\.", "norm.", name)
            renamed[f"vit.{name}"] = value.float()
    return renamed


def _clip_shape(name: str, value: Tensor) -> Tensor:
    """Change a tensor from OpenAI's layout to timm's."""
    if name == "vit.cls_token":
        return value.view(1, 1, -1)
    if name == "vit.pos_embed":
        return value.unsqueeze(0)
    return value.T.contiguous() if name == "proj.weight" else value


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int], num_prefix_tokens: int) -> Tensor:
    """Resize (1, prefix + n*n, W) from its square grid to `grid`, bilinearly; prefix tokens are kept."""
    prefix, patches = embedding[:, :num_prefix_tokens], embedding[:, num_prefix_tokens:]
    side = int(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1] or (side, side) == tuple(grid):
        return embedding  # no square grid, or the very one: the caller finds whether the shapes are equal
    image = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, W, n, n)
    image = F.interpolate(image.float(), size=grid, mode="bilinear", align_corners=False)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2)], dim=1)
