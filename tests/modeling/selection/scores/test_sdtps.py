"""The score of SDTPS equals SEPS eq. 1-3, worked by hand."""

import math

import torch

from modeling.selection.scores.sdtps import OpenCodeScore, SDTPSScore, cosine_scores
from tests.helpers.selection import make_sdtps


def make_score(embed_dim, kind=SDTPSScore, **options):
    defaults = {"beta": 0.25, "use_predictor": True, "detach_attention": True}
    return kind(embed_dim=embed_dim, **{**defaults, **options})


def test_score_by_hand():
    """Patches and globals are two-dimensional and point east, north-east or north, so that their cosines are known."""
    diagonal = math.sqrt(0.5)
    patches = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    globals_ = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tokens = torch.cat([globals_[:, None], patches.expand(3, 3, 2)], dim=1)[None]  # (1, 3, 1 + 3, 2)
    east = torch.tensor([1.0, diagonal, 0.0])  # cosines with RGB's global: 1, 0.707, 0, which span [0, 1]
    north = torch.tensor([0.0, diagonal, 1.0])  # with NI's
    north_east = torch.tensor([0.0, 1.0, 0.0])  # with TI's: 0.707, 1, 0.707, scaled
    score = make_score(2, beta=0.2)
    for predictor in score.predictor.values():
        predictor[0] = torch.nn.Identity()
        predictor[1] = torch.nn.Identity()
        predictor[2] = torch.nn.Linear(2, 1)
        with torch.no_grad():
            predictor[2].weight.copy_(torch.tensor([[0.5, -0.25]]))
            predictor[2].bias.fill_(0.1)
    s_p = torch.tensor([1.1, 0.35, -0.65]).sigmoid()
    sums = [2 * east + north + north_east, east + 2 * north + north_east, east + north + 2 * north_east]
    for m, attention in enumerate(sums):
        torch.testing.assert_close(score(tokens).value[0, m], 0.6 * s_p + 0.2 * attention)
        torch.testing.assert_close(score(tokens).parts["predicted"][0, m], s_p)
        torch.testing.assert_close(score(tokens).parts["attention"][0, m], attention)

    for open_code in (make_score(2, use_predictor=False), make_score(2, kind=OpenCodeScore, beta=0.4)):
        torch.testing.assert_close(open_code(tokens).value[0], (east + north + north_east).expand(3, 3))
        assert not [*open_code.parameters()], "the public code has no predictor, whatever the keys of it say"


def test_zeros_and_constant_rows_score_zero():
    patches = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    scores = cosine_scores(patches, torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))
    torch.testing.assert_close(scores, torch.tensor([[[0.0, 0.0, 0.0], [0.5, 1.0, 0.0]]]))
    assert not cosine_scores(torch.ones(1, 4, 2), torch.randn(1, 1, 2)).any()


def test_no_gradient_through_detached_attention():
    for detach in (True, False):
        torch.manual_seed(0)
        tokens = torch.randn(2, 3, 13, 20, requires_grad=True)
        make_score(20, detach_attention=detach)(tokens).value[:, 0, 0].sum().backward()
        globals_ = tokens.grad[:, :, 0]
        assert bool(globals_.any()) != detach
        assert detach or all(globals_[:, m].abs().sum() > 0 for m in range(3)), "own and others"


def test_an_absent_modality_scores_nothing():
    torch.manual_seed(0)
    tokens, score = torch.randn(1, 3, 9, 20), make_score(20, use_predictor=False)
    alone = score(tokens, torch.tensor([[False, True, False]])).value[0, 1]
    torch.testing.assert_close(alone, cosine_scores(tokens[:, 1, 1:], tokens[:, 1, :1])[0, 0])


def test_each_modality_is_scored_with_its_own_and_the_others_globals():
    """Changing TI's global changes the scores of all three; changing TI's patches changes those of TI only."""
    torch.manual_seed(0)
    sdtps, tokens = make_sdtps(20, 16).eval(), torch.randn(2, 3, 17, 20)
    before = sdtps(tokens)[1].score
    for position, changed in ((0, [True, True, True]), (5, [False, False, True])):
        other = tokens.clone()
        other[:, 2, position] += 1.0
        after = sdtps(other)[1].score
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == changed
