"""Make checkpoints under the names of the original DeMo code, and run its forward pass as the publications describe it.

Nothing here knows the framework's modules: weights are looked up in a state dict by the original's names. All of it is
in evaluation mode. Shapes: B batch, M = 3 modalities, L = 1 + N tokens, C width.
"""

import torch
from torch.nn import functional as F

from tests.helpers.clip import clip_tokens, openai_state

LETTERS, NAMES = "rnt", ("rgb", "nir", "tir")
SUBSETS = {"r": [0], "n": [1], "t": [2], "rn": [0, 1], "rt": [0, 2], "nt": [1, 2], "rnt": [0, 1, 2]}


def original_state(
    *, width=32, out=24, depth=2, patches=8, classes=5, clip=True, cameras=0, direct=True, pife=False, hdm=False,
    head=0, sdtps=0,
):  # fmt: skip
    """Draw random weights with `head` heads of ATMoE and `sdtps` aggregated tokens; 0 leaves out the part."""

    def draw(*shape):
        return torch.randn(*shape) * 0.1

    def linear(name, rows, columns, bias=True):
        return {f"{name}.weight": 3 * draw(rows, columns)} | ({f"{name}.bias": draw(rows)} if bias else {})

    def norm(name, size):
        return {f"{name}.weight": 1 + draw(size), f"{name}.bias": draw(size)}

    def batch_norm(name, size):
        statistics = {f"{name}.running_mean": draw(size), f"{name}.running_var": torch.rand(size) + 0.5}
        return norm(name, size) | statistics | {f"{name}.num_batches_tracked": torch.tensor(70)}

    def branch(suffix, size):
        return batch_norm(f"bottleneck{suffix}", size) | linear(f"classifier{suffix}", classes, size, bias=False)

    if clip:
        tower = openai_state(width=width, depth=depth, out=out, side=1, text=False)
        tower = {key.removeprefix("visual."): value for key, value in tower.items()}
        tower["positional_embedding"] = draw(1 + patches, width)
    else:
        out = width
        tower = {"cls_token": draw(1, 1, width), "pos_embed": draw(1, 1 + patches, width)}
        tower |= {"patch_embed.proj.weight": draw(width, 3, 16, 16), "patch_embed.proj.bias": draw(width)}
        for i in range(depth):
            tower |= norm(f"blocks.{i}.norm1", width) | norm(f"blocks.{i}.norm2", width)
            tower |= linear(f"blocks.{i}.attn.qkv", 3 * width, width) | linear(f"blocks.{i}.attn.proj", width, width)
            tower |= linear(f"blocks.{i}.mlp.fc1", 4 * width, width) | linear(f"blocks.{i}.mlp.fc2", width, 4 * width)
        tower |= norm("norm", width)
    state = {f"BACKBONE.base.{key}": value for key, value in tower.items()}
    if cameras:
        state["BACKBONE.cv_embed" if clip else "BACKBONE.base.sie_embed"] = 5 * draw(cameras, 1, width)

    if pife:
        for name in NAMES:
            state |= norm(f"{name}_reduce.0", 2 * out) | linear(f"{name}_reduce.1", out, 2 * out)
    if direct:
        state |= branch("", 3 * out)
    else:
        for letter in LETTERS:
            state |= branch(f"_{letter}", out)
    if hdm:
        for subset in SUBSETS:
            name = f"generalFusion.{subset}"
            state |= {f"{name}_token": 10 * draw(1, 1, out), f"{name}.in_proj_weight": 3 * draw(3 * out, out)}
            state |= {f"{name}.in_proj_bias": draw(3 * out)} | linear(f"{name}.out_proj", out, out)
        state |= branch("_moe", 7 * out)
    if head:
        gate = "generalFusion.moe.gating_network.gate"
        state |= linear(f"{gate}.linear_re.0", out, 7 * out) | batch_norm(f"{gate}.linear_re.2", out)
        state |= linear(f"{gate}.q_", out, out, bias=False) | linear(f"{gate}.k_", out, out, bias=False)
        for h in range(head):
            for f in range(7):
                name = f"generalFusion.moe.experts.{h}.expertHead.{f}.mlp"
                state |= linear(f"{name}.0", out // head, out // head) | batch_norm(f"{name}.2", out // head)
    if sdtps:
        for name in NAMES:
            predictor, aggregation = f"sdtps.{name}_sparse.score_predictor", f"sdtps.{name}_aggr"
            state |= linear(f"{predictor}.0", out // 4, out) | linear(f"{predictor}.2", 1, out // 4)
            state |= norm(f"{aggregation}.weight.0", out) | linear(f"{aggregation}.weight.1", int(0.2 * out), out)
            state |= linear(f"{aggregation}.weight.3", sdtps, int(0.2 * out))
            state |= {f"{aggregation}.scale": 2 + torch.rand(1, 1, 1)}
        state |= branch("_sdtps", 3 * out)
    return state


def forward(w, images, camera, *, tower_heads=2, kept=4):
    """Map images (B, M, 3, H, W), camera (B,) to {branch: (feature, logits)}; ori per modality is 'r', 'n' or 't'."""
    tokens = torch.stack([tower(w, images[b], camera[b], tower_heads) for b in range(len(images))])  # (B, M, L, C)
    patches = tokens[:, :, 1:]
    globals_ = [tokens[:, m, 0] for m in range(3)]
    if "rgb_reduce.0.weight" in w:
        joined = [torch.cat([globals_[m], patches[:, m].mean(1)], 1) for m in range(3)]
        globals_ = [
            quick_gelu(linear(w, f"{n}_reduce.1", layer_norm(w, f"{n}_reduce.0", joined[m])))
            for m, n in enumerate(NAMES)
        ]

    found = {}
    if "classifier.weight" in w:
        found["ori"] = with_head(w, "", torch.cat(globals_, 1))
    else:
        found |= {letter: with_head(w, f"_{letter}", globals_[m]) for m, letter in enumerate(LETTERS)}
    if "generalFusion.r_token" in w:
        features = hdm(w, [torch.cat([globals_[m][:, None], patches[:, m]], 1) for m in range(3)])
        mixed = "generalFusion.moe.gating_network.gate.q_.weight" in w
        found["moe"] = with_head(w, "_moe", atmoe(w, features) if mixed else torch.cat(features, 1))
    if "classifier_sdtps.weight" in w:
        found["sdtps"] = with_head(w, "_sdtps", sdtps(w, patches, globals_, kept))
    return found


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def layer_norm(w, name, x, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def batch_norm(w, name, x):
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return (x - mean) / torch.sqrt(var + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def attention(query, keys, in_weight, in_bias, out_weight, out_bias, num_heads):
    """Run torch's own attention; query and keys are (B, tokens, C)."""
    query, keys = query.transpose(0, 1), keys.transpose(0, 1)
    found, _ = F.multi_head_attention_forward(
        query, keys, keys, query.shape[-1], num_heads, in_weight, in_bias, None, None, False, 0.0, out_weight, out_bias,
        training=False, need_weights=False,
    )  # fmt: skip
    return found.transpose(0, 1)


def with_head(w, suffix, feature):
    return feature, batch_norm(w, f"bottleneck{suffix}", feature) @ w[f"classifier{suffix}.weight"].T


def tower(w, images, camera, num_heads):
    """Return the tokens (M, L, C) of one sample's images (M, 3, H, W)."""
    base = {key.removeprefix("BACKBONE.base."): value for key, value in w.items() if key.startswith("BACKBONE.base.")}
    if "class_embedding" in base:
        if "BACKBONE.cv_embed" in w:  # on the class token alone
            base["class_embedding"] = base["class_embedding"] + w["BACKBONE.cv_embed"][camera, 0]
        return clip_tokens({f"visual.{key}": value for key, value in base.items()}, images, heads=num_heads)
    x = F.conv2d(images, base["patch_embed.proj.weight"], base["patch_embed.proj.bias"], stride=16)
    x = torch.cat([base["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + base["pos_embed"]
    if "sie_embed" in base:  # on every token
        x = x + base["sie_embed"].reshape(len(base["sie_embed"]), -1)[camera]
    for i in range(sum(name.endswith(".norm1.weight") for name in base)):
        block = f"blocks.{i}"
        y = layer_norm(base, f"{block}.norm1", x, eps=1e-6)
        parts = [base[f"{block}.attn.{part}"] for part in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")]
        x = x + attention(y, y, *parts, num_heads)
        y = layer_norm(base, f"{block}.norm2", x, eps=1e-6)
        x = x + linear(base, f"{block}.mlp.fc2", F.gelu(linear(base, f"{block}.mlp.fc1", y)))
    return layer_norm(base, "norm", x, eps=1e-6)


def hdm(w, tokens):
    """Map the tokens (B, L, C) of three modalities to seven features (B, C), with heads of width 64, or one."""
    features = []
    for subset, members in SUBSETS.items():
        name = f"generalFusion.{subset}"
        joined = torch.cat([tokens[m] for m in members], 1)
        query = w[f"{name}_token"].expand(len(joined), -1, -1)
        parts = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        num_heads = max(1, joined.shape[-1] // 64)
        features.append(attention(query, joined, *[w[f"{name}.{part}"] for part in parts], num_heads)[:, 0])
    return features


def atmoe(w, features):
    """Map seven features (B, C) to (B, 7C): the experts' outputs times their gates, by head and then by feature."""
    gate = "generalFusion.moe.gating_network.gate"
    num_heads = sum(key.endswith("expertHead.0.mlp.0.weight") for key in w)
    width = features[0].shape[1] // num_heads
    query = batch_norm(w, f"{gate}.linear_re.2", quick_gelu(linear(w, f"{gate}.linear_re.0", torch.cat(features, 1))))
    query = linear(w, f"{gate}.q_", query)
    keys = [linear(w, f"{gate}.k_", feature) for feature in features]
    outputs = []
    for h in range(num_heads):
        part = slice(h * width, (h + 1) * width)
        gates = torch.stack([(query[:, part] * key[:, part]).sum(1) / width**0.5 for key in keys], 1).softmax(1)
        for f, feature in enumerate(features):
            expert = f"generalFusion.moe.experts.{h}.expertHead.{f}.mlp"
            hidden = batch_norm(w, f"{expert}.2", quick_gelu(linear(w, f"{expert}.0", feature[:, part])))
            outputs.append(gates[:, f : f + 1] * hidden)
    return torch.cat(outputs, 1)


def sdtps(w, patches, globals_, kept, beta=0.25):
    """Map patches (B, M, N, C) and three globals (B, C) to (B, 3C), one image at a time."""
    rows = []
    for b in range(len(patches)):
        for m, name in enumerate(NAMES):
            v = patches[b, m]
            hidden = F.gelu(linear(w, f"sdtps.{name}_sparse.score_predictor.0", v))
            predicted = torch.sigmoid(linear(w, f"sdtps.{name}_sparse.score_predictor.2", hidden))[:, 0]
            scaled = []
            for g in globals_:
                cosine = torch.stack([row @ g[b] / (row.norm() * g[b].norm()) for row in v])
                scaled.append((cosine - cosine.min()) / (cosine.max() - cosine.min()))
            # The cosine to the modality's own global counts twice.
            score = (1 - 2 * beta) * predicted + beta * (sum(scaled) + scaled[m])
            order = score.argsort(descending=True)
            chosen, dropped = v[order[:kept]], order[kept:]
            extra = score[dropped].softmax(0) @ v[dropped]
            logits = F.gelu(
                linear(w, f"sdtps.{name}_aggr.weight.1", layer_norm(w, f"sdtps.{name}_aggr.weight.0", chosen))
            )
            logits = linear(w, f"sdtps.{name}_aggr.weight.3", logits).T * w[f"sdtps.{name}_aggr.scale"].flatten()
            rows.append(torch.cat([logits.softmax(1) @ chosen, extra[None]]).mean(0))
    return torch.stack(rows).view(len(patches), -1)
