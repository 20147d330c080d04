"""Scores from recorded attention equal their formulas, worked by hand."""

import math

import pytest
import torch

from modeling.selection import TokenInfo
from modeling.selection.scores.attention import ATSScore, AttentionScore, EditorScore, RolloutScore
from tests.helpers.selection import make_selection

TOKENS = torch.zeros(1, 1, 5, 4)
"""One image of one modality with four patches, whose values no score here reads."""


def score_of(score, name, rows):
    return score(TOKENS, None, TokenInfo(recorded={name: torch.tensor(rows)[None, None]})).value[0, 0]


def test_attention_is_the_mean_of_the_heads_beside_an_even_share():
    value = score_of(AttentionScore(), "attention", [[0.1, 0.2, 0.3, 0.1], [0.3, 0.2, 0.1, 0.1]])
    torch.testing.assert_close(value, torch.tensor([0.2, 0.2, 0.2, 0.1]).mul(4).log())


def test_a_patch_without_any_attention_has_a_finite_score():
    value = score_of(AttentionScore(), "attention", [[0.0, 0.5, 0.3, 0.1]])
    assert value.isfinite().all() and value.argmin() == 0


def test_rollout_is_the_logarithm_of_its_row():
    value = score_of(RolloutScore(), "rollout", [[0.4, 0.1, 0.2, 0.25]])
    torch.testing.assert_close(value, torch.tensor([math.log(1.6), math.log(0.4), math.log(0.8), math.log(1.0)]))


def test_ats_normalises_each_head_and_averages_them():
    """The heads are a_i |v_i| = 1, 1, 2, 0 and 0, 3, 0, 1."""
    value = score_of(ATSScore(), "value_attention", [[1.0, 1.0, 2.0, 0.0], [0.0, 3.0, 0.0, 1.0]])
    torch.testing.assert_close(value.exp() / 4, torch.tensor([0.125, 0.5, 0.25, 0.125]))


def test_the_extra_token_of_attention_is_evits_fused_token():
    """It is the sum of a_i x_i over the dropped patches, divided by the sum of their a_i."""
    torch.manual_seed(0)
    selection = make_selection(4, 10, score="attention", aggregation="none", sparse_ratio=0.4).eval()
    tokens, rows = torch.randn(2, 3, 11, 4), torch.rand(2, 3, 2, 10)
    outputs, chosen = selection(tokens, None, TokenInfo(recorded={"attention": rows}))
    for b in range(2):
        for m in range(3):
            attention = rows[b, m].mean(dim=0)
            best = sorted(range(10), key=lambda i, a=attention: -a[i].item())[:4]
            assert chosen.indices[m][b].tolist() == best
            dropped = [i for i in range(10) if i not in best]
            fused = sum(attention[i] * tokens[b, m, 1 + i] for i in dropped) / sum(attention[i] for i in dropped)
            torch.testing.assert_close(outputs[b, m, -1], fused)


def test_editor_counts_the_votes_of_all_heads_of_all_modalities():
    """Two heads in each of three modalities vote for two of four patches; TI is absent in the second image."""
    heads = {
        "RGB": [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]],  # votes for 0 and 1; for 2 and 3
        "NI": [[0.4, 0.1, 0.3, 0.2], [0.3, 0.1, 0.4, 0.2]],  # votes for 0 and 2, twice
        "TI": [[0.1, 0.4, 0.2, 0.3], [0.2, 0.3, 0.1, 0.4]],  # votes for 1 and 3, twice
    }
    rows = torch.tensor([list(heads.values())] * 2)  # (2, 3, 2, 4)
    score = EditorScore(num_patches=4, sparse_ratio=0.5)
    present = torch.tensor([[True, True, True], [True, True, False]])
    value = score(torch.zeros(2, 3, 5, 4), present, TokenInfo(recorded={"head_rollout": rows})).value
    assert torch.equal(value[:, 0], value[:, 1]) and torch.equal(value[:, 0], value[:, 2]), "one choice for all"
    assert value[0, 0].floor().tolist() == [3, 3, 3, 3]
    assert value[1, 0].floor().tolist() == [3, 1, 3, 1]
    mean_of_six = torch.tensor([1.5, 1.4, 1.5, 1.6]) / 6
    torch.testing.assert_close(value[0, 0] - 3, mean_of_six)


@pytest.mark.parametrize(("score", "record"), [(AttentionScore, "attention"), (ATSScore, "value_attention")])
def test_these_work_at_later_stages(score, record):
    assert "grid" not in score.needs and score.records == (record,)


@pytest.mark.parametrize("score", [RolloutScore, EditorScore])
def test_products_over_blocks_need_the_patches_of_the_image(score):
    assert "grid" in score.needs


def test_editors_votes_of_any_image_counted_one_by_one():
    """Two heads in three modalities, of which one or two are absent, vote for three of seven patches."""
    rows = torch.rand(2, 3, 2, 7, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, False, True], [False, True, False]])
    score = EditorScore(num_patches=7, sparse_ratio=0.4)
    value = score(torch.zeros(2, 3, 8, 4), present, TokenInfo(recorded={"head_rollout": rows})).value
    for b in range(2):
        heads = [rows[b, m, h].tolist() for m in range(3) if present[b, m] for h in range(2)]
        for n in range(7):
            votes = sum(sum(other > head[n] for other in head) < 3 for head in heads)
            share = sum(head[n] / sum(head) for head in heads) / 6
            assert value[b, 0, n].item() == pytest.approx(votes + share, abs=1e-5)
    union = {n for n in range(7) if value[0, 0, n] >= 1}
    best = value[0, 0].argsort(descending=True)[:3].tolist()
    assert {*best} <= union, "what is kept has a vote, as in EDITOR's union"
