"""TokenSparse keeps the best patches, folds the rest into the extra token, and sorts equal scores by index."""

import torch

from modeling.selection import TokenSparse


def make_sparse(sparse_ratio):
    return TokenSparse(sparse_ratio=sparse_ratio, use_gumbel=False, gumbel_tau=1.0, gumbel_sample=False)


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
