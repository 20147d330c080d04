"""Make weights of small CLIP towers in OpenAI's format, and compute CLIP's image tower as its paper describes it."""

import torch
from torch import nn
from torch.nn import functional as F


def openai_state(*, width, depth, out, side, patch=16, text=True):
    """Draw random weights under OpenAI's names: the image tower with the `visual.` prefix, the text tower without."""

    def draw(*shape):
        return torch.randn(*shape) * 0.1

    state = {
        "class_embedding": draw(width),
        "positional_embedding": draw(side * side + 1, width),
        "conv1.weight": draw(width, 3, patch, patch),
        "proj": draw(width, out),
    }
    for norm in ("ln_pre", "ln_post"):
        state |= {f"{norm}.weight": 1 + draw(width), f"{norm}.bias": draw(width)}
    for i in range(depth):
        block = {
            "attn.in_proj_weight": draw(3 * width, width),
            "attn.in_proj_bias": draw(3 * width),
            "attn.out_proj.weight": draw(width, width),
            "attn.out_proj.bias": draw(width),
            "mlp.c_fc.weight": draw(4 * width, width),
            "mlp.c_fc.bias": draw(4 * width),
            "mlp.c_proj.weight": draw(width, 4 * width),
            "mlp.c_proj.bias": draw(width),
            **{f"ln_{n}.{part}": draw(width) + (part == "weight") for n in (1, 2) for part in ("weight", "bias")},
        }
        state |= {f"transformer.resblocks.{i}.{name}": value for name, value in block.items()}
    state = {f"visual.{name}": value for name, value in state.items()}
    if text:
        state |= {"text_projection": draw(8, out), "positional_embedding": draw(7, 8), "logit_scale": torch.ones([])}
        state |= {"transformer.resblocks.0.ln_1.weight": draw(8), "token_embedding.weight": draw(9, 8)}
    return state


def clip_tokens(state, images, *, heads):
    """Run CLIP's image tower (Radford et al., ICML 2021; names of openai/CLIP) with the projection on every token."""
    w = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    width = len(w["class_embedding"])
    x = F.conv2d(images, w["conv1.weight"], stride=w["conv1.weight"].shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([w["class_embedding"].expand(len(x), 1, -1), x], 1) + w["positional_embedding"]
    x = F.layer_norm(x, (width,), w["ln_pre.weight"], w["ln_pre.bias"])
    depth = sum(name.endswith("ln_1.weight") for name in w)
    for i in range(depth):
        p = {name.split(f"resblocks.{i}.")[1]: value for name, value in w.items() if f"resblocks.{i}." in name}
        attention = nn.MultiheadAttention(width, heads, batch_first=True)
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in p.items() if k.startswith("attn.")})
        y = F.layer_norm(x, (width,), p["ln_1.weight"], p["ln_1.bias"])
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.linear(
            F.layer_norm(x, (width,), p["ln_2.weight"], p["ln_2.bias"]), p["mlp.c_fc.weight"], p["mlp.c_fc.bias"]
        )
        x = x + F.linear(y * torch.sigmoid(1.702 * y), p["mlp.c_proj.weight"], p["mlp.c_proj.bias"])
    return F.layer_norm(x, (width,), w["ln_post.weight"], w["ln_post.bias"]) @ w["proj"]


class Archive(nn.Module):
    """This module's state dict is the given one, as that of OpenAI's TorchScript archive is."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *parents, leaf = name.split(".")
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x
