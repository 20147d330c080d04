"""The aligned score reads all modalities at a place, and learns from a head of its own which places tell identities."""

import pytest
import torch
from torch.nn import functional as F

from configs import get_cfg
from modeling import build_loss, build_model
from modeling.heads import BNNeckHead
from modeling.selection.scores.aligned import AlignedScore
from tests.helpers.batches import labelled
from utils.errors import UserError

TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]  # 8 patches
ALIGNED = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGREGATION", "none", "MODEL.SDTPS_SCORE", "aligned"]


def make(*opts):
    torch.manual_seed(0)
    cfg = get_cfg(None, [*TINY, *ALIGNED, *opts])
    return build_model(cfg, num_classes=4, num_cameras=1).train(), build_loss(cfg)


def test_value_and_pooled_patches_by_hand():
    """The places are taken one by one, in float64."""
    torch.manual_seed(0)
    score, tokens = AlignedScore(embed_dim=6).double(), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    found = score.float()(tokens.float())
    score = score.double()
    for b in range(2):
        values, pooled = [], torch.zeros(3, 6, dtype=torch.float64)
        for n in range(1, 5):
            read = []
            for m in range(3):
                patch = tokens[b, m, n]
                scaled = (patch - patch.mean()) / (patch.var(unbiased=False) + 1e-5).sqrt()
                read.append(scaled * score.norm.weight + score.norm.bias)
            first, _, last = score.mlp
            hidden = F.gelu(first.weight @ torch.cat(read) + first.bias)
            values.append(last.weight[0] @ hidden + last.bias[0])
        weights = 1 / (1 + torch.exp(-torch.stack(values)))
        for m in range(3):
            pooled[m] = sum(weights[n] * tokens[b, m, n + 1] for n in range(4)) / weights.sum()
            torch.testing.assert_close(found.value[b, m].double(), torch.stack(values), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.pooled[b].double(), pooled, rtol=1e-5, atol=1e-5)


def test_what_an_absent_modality_shows_does_not_matter():
    torch.manual_seed(0)
    score, tokens = AlignedScore(embed_dim=6), torch.randn(1, 3, 5, 6)
    other = tokens.clone()
    other[:, 1] = torch.randn(5, 6)
    present = torch.tensor([[True, False, True]])
    assert torch.equal(score(tokens, present).value, score(other, present).value)
    assert not torch.equal(score(tokens).value, score(other).value)


def test_the_head_teaches_the_score_and_not_the_backbone():
    for opts in ([], ["MODEL.SDTPS_BLOCK", 1]):
        model, loss = make(*opts)
        losses = loss(model(torch.randn(4, 3, 3, 64, 32), torch.zeros(4).long()), labelled([0, 0, 1, 1]))
        (losses["id/score"] + losses["triplet/score"]).backward()
        reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        learned = {name for name in reached if ".score." in name}
        heads = {"heads.score.neck.weight", "heads.score.classifier.weight"}
        assert learned and all(bool(model.get_parameter(name).grad.any()) for name in learned - {"bias"})
        assert reached - learned <= heads and not any(name.startswith("backbone") for name in reached)


def test_no_descriptor_is_made_of_the_head():
    model, loss = make("MODEL.SDTPS_BLOCK", 1)
    losses = loss(model(torch.randn(4, 3, 3, 64, 32), torch.zeros(4).long()), labelled([0, 0, 1, 1]))
    assert {"id/score", "triplet/score"} < losses.keys()
    assert model.descriptor_names == ("ori", "sdtps", "all")
    assert "score" not in model.eval()(torch.randn(1, 3, 3, 64, 32), torch.zeros(1).long()).logits


def test_only_the_first_stage_has_modalities_that_are_aligned():
    with pytest.raises(UserError, match="only the first stage sees patches in their places"):
        make("MODEL.TRANSFORMER_TYPE", "ViT-Micro-8", "MODEL.SDTPS_BLOCK", [1, 2])


def test_it_learns_which_place_tells_the_identity():
    """One of six places shows the identity, in NI only; the others show noise."""
    torch.manual_seed(0)
    score, head, prototypes = AlignedScore(embed_dim=8), BNNeckHead(24, 4), 2 * torch.randn(4, 8)
    optimizer = torch.optim.Adam([*score.parameters(), *head.parameters()], lr=0.01)
    for _ in range(150):
        pid, place = torch.randint(4, (32,)), torch.randint(6, (32,))
        tokens = torch.randn(32, 3, 7, 8)
        tokens[torch.arange(32), 1, 1 + place] = prototypes[pid] + 0.3 * torch.randn(32, 8)
        scores = score(tokens)
        _, logits = head(scores.pooled.flatten(1))
        optimizer.zero_grad()
        F.cross_entropy(logits, pid).backward()
        optimizer.step()
    hits = scores.value[:, 0].argmax(dim=1) == place
    assert hits.float().mean() > 0.7, "chance is 1/6"
