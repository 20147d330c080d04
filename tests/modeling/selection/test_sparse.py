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
    patches, score = torch.randn(2, 10, 4, requires_grad=True), torch.rand(2, 10)
    out = make_sparse(0.5, extra_token=False)(patches, score)
    assert out.extra is None
    torch.testing.assert_close(out.kept, make_sparse(0.5)(patches, score).kept)
    out.kept.sum().backward()
    assert torch.equal(patches.grad[..., 0], out.decision), "nothing comes from the others"


@pytest.mark.parametrize(
    ("epoch", "ratio", "kept"), [(0, 1.0, 99), (2, 0.2 + 0.8 * 0.75, 80), (3, 0.6, 60), (6, 0.2, 20), (100, 0.2, 20)]
)
def test_the_share_that_is_kept_falls_by_half_a_cosine(epoch, ratio, kept):
    """After a third of the six epochs (1 + cos(pi / 3)) / 2 is 0.75, and after half of them 0.5."""
    assert annealed_ratio(0.2, epoch, 6) == pytest.approx(ratio)
    sparse = make_sparse(0.2, anneal_epochs=6)
    sparse.start_epoch(epoch)
    patches, score = torch.randn(1, 100, 2), torch.rand(1, 100)
    assert sparse.train()(patches, score).kept.shape[1] == kept
    assert sparse.eval()(patches, score).kept.shape[1] == 20, "the evaluation keeps the final share"


def test_a_run_that_resumes_keeps_the_share_of_its_epoch():
    patches, score = torch.randn(1, 100, 2), torch.rand(1, 100)
    whole, resumed = make_sparse(0.2, anneal_epochs=6), make_sparse(0.2, anneal_epochs=6)
    for epoch in range(5):
        whole.start_epoch(epoch)
    resumed.start_epoch(4)
    assert torch.equal(whole(patches, score).indices, resumed(patches, score).indices)


def test_while_the_share_falls_the_score_always_has_a_way_to_the_loss():
    """DistributedDataParallel allows no parameter that gets its first gradient after the first step."""
    for epoch in (0, 1, 6):
        sparse = make_sparse(0.2, anneal_epochs=6)
        sparse.start_epoch(epoch)
        score = torch.rand(1, 8, requires_grad=True)
        out = sparse(torch.randn(1, 8, 2), score)
        out.extra.sum().backward()
        assert out.extra.shape == (1, 1, 2) and score.grad is not None
    kept_whole = make_sparse(0.95, anneal_epochs=6)  # ceil(0.95 x 8) is 8: it never drops any
    kept_whole.start_epoch(0)
    assert kept_whole(torch.randn(1, 8, 2), torch.rand(1, 8)).kept.shape[1] == 8


def test_gates_by_hand():
    """The scores less their mean are 3, 0, -1 and -2; the best two are kept, and the extra token counts as one."""
    score = torch.tensor([[4.0, 1.0, 0.0, -1.0]], requires_grad=True)
    out = make_sparse(0.5, gate=True)(torch.ones(1, 4, 2), score)
    torch.testing.assert_close(out.gates, torch.tensor([[2 / (1 + math.exp(-3)), 1.0, 1.0]]))
    assert make_sparse(0.5, gate=True, extra_token=False)(torch.ones(1, 4, 2), score).gates.shape == (1, 2)
    assert make_sparse(0.5)(torch.ones(1, 4, 2), score).gates is None
    out.gates.sum().backward()
    slopes = torch.tensor([2 * math.exp(-3) / (1 + math.exp(-3)) ** 2, 0.5])
    torch.testing.assert_close(score.grad, torch.tensor([[*slopes, 0.0, 0.0]]) - slopes.sum() / 4)


def test_a_gate_has_a_logarithm_however_far_a_score_lies_below_the_mean():
    score = torch.tensor([[-200.0, -200.0, -200.0, 600.0]], requires_grad=True)
    gates = make_sparse(0.75, gate=True)(torch.ones(1, 4, 1), score).gates
    assert gates.log().isfinite().all() and gates[0, 1] < 1e-30
    gates.log().sum().backward()
    assert score.grad.isfinite().all()
