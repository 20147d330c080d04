"""TokenSparse keeps the best patches, folds the rest into the extra token, and sorts equal scores by index."""

import math

import pytest
import torch

from modeling.selection import TokenSparse
from modeling.selection.sparse import annealed_ratio


def make_sparse(sparse_ratio, **options):
    plain = {"extra_token": True, "gate": False, "anneal_epochs": 0}
    gumbel = {"use_gumbel": False, "gumbel_tau": 1.0, "gumbel_sample": False}
    return TokenSparse(sparse_ratio=sparse_ratio, **{**plain, **gumbel, **options})


def test_keeps_the_best_and_folds_the_rest_into_the_extra_token():
    generator = torch.Generator().manual_seed(0)
    patches, score = torch.randn(2, 12, 20, generator=generator), torch.rand(2, 12, generator=generator)
    out = make_sparse(0.4)(patches, score)
    assert out.kept.shape == (2, 5, 20)
    for b in range(2):
        best = sorted(range(12), key=lambda i: -score[b, i].item())
        assert out.indices[b].tolist() == best[:5]
        assert out.decision[b].tolist() == [float(i in best[:5]) for i in range(12)]
        torch.testing.assert_close(out.kept[b], patches[b, best[:5]])
        weights = torch.softmax(score[b, best[5:]], 0)
        torch.testing.assert_close(out.extra[b, 0], weights @ patches[b, best[5:]])


def test_equal_scores_go_by_patch_index():
    out = make_sparse(0.5)(torch.ones(1, 200, 4), torch.ones(1, 200))
    assert out.indices[0].tolist() == list(range(100))


def test_with_every_patch_kept_there_is_no_extra_token():
    out = make_sparse(1.0)(torch.ones(1, 4, 2), torch.rand(1, 4))
    assert out.extra is None and out.kept.shape == (1, 4, 2)


def test_without_the_extra_token_the_rest_is_forgotten():
    patches, score = torch.randn(2, 10, 4), torch.rand(2, 10)
    out = make_sparse(0.5, extra_token=False)(patches, score)
    assert out.extra is None
    torch.testing.assert_close(out.kept, make_sparse(0.5)(patches, score).kept)


@pytest.mark.parametrize(("epoch", "ratio"), [(0, 1.0), (2, 0.2 + 0.8 * 0.75), (3, 0.6), (6, 0.2), (100, 0.2)])
def test_the_share_that_is_kept_falls_by_half_a_cosine(epoch, ratio):
    """After a third of the six epochs (1 + cos(pi / 3)) / 2 is 0.75, and after half of them 0.5."""
    assert annealed_ratio(0.2, epoch, 6) == pytest.approx(ratio)
    sparse = make_sparse(0.2, anneal_epochs=6)
    sparse.start_epoch(epoch)
    patches, score = torch.randn(1, 100, 2), torch.rand(1, 100)
    assert sparse.train()(patches, score).kept.shape[1] == round(100 * ratio)
    assert sparse.eval()(patches, score).kept.shape[1] == 20, "the evaluation keeps the final share"


def test_the_gate_changes_no_value_and_passes_on_the_gradient_of_its_logarithm():
    """d log(sigmoid(z)) / dz is 1 - sigmoid(z), where z is the score less its mean over the four patches: 3 and 0."""
    patches = torch.tensor([[[2.0], [3.0], [5.0], [7.0]]])
    score = torch.tensor([[4.0, 1.0, 0.0, -1.0]], requires_grad=True)
    kept = make_sparse(0.5, gate=True)(patches, score).kept
    assert torch.equal(kept, torch.tensor([[[2.0], [3.0]]]))
    kept.sum().backward()
    slope = [2.0 * (1 - 1 / (1 + math.exp(-3))), 3.0 * 0.5]
    mean = sum(slope) / 4
    torch.testing.assert_close(score.grad, torch.tensor([[slope[0] - mean, slope[1] - mean, -mean, -mean]]))
