"""What is left of a score without the content of the images equals cases worked by hand."""

import pytest
import torch

from tests.helpers.subjects import make_subject
from tools.visualize.places import Places, measure_places


def places(score, present=None):
    score = torch.tensor(score)[:, None]  # (I, 1, N)
    present = torch.ones(len(score), 1, dtype=torch.bool) if present is None else torch.tensor(present)[:, None]
    indices = score.argsort(dim=-1, descending=True)[..., :1]
    return Places(score - score.mean(dim=-1, keepdim=True), indices, torch.zeros(1, score.shape[-1]), present)


def test_a_score_of_places_alone_is_all_explained():
    assert places([[0.0, 1.0, 2.0]] * 4).explained == [pytest.approx(1.0)]


def test_a_score_that_differs_at_every_place_is_not_explained():
    assert places([[0.0, 2.0], [2.0, 0.0]]).explained == [pytest.approx(0.0)]


def test_half_of_the_variance_is_explained():
    """The scores are +-1 +-1: the place gives one of the signs, and the image the other."""
    found = places([[2.0, 0.0, 0.0, -2.0], [0.0, 2.0, -2.0, 0.0]])
    assert found.mean[0].tolist() == [1.0, 1.0, -1.0, -1.0]
    assert found.explained == [pytest.approx(0.5)]


def test_images_without_the_modality_do_not_count():
    found = places([[0.0, 2.0], [6.0, 0.0]], present=[True, False])
    assert found.mean[0].tolist() == [-1.0, 1.0] and found.explained == [pytest.approx(1.0)]
    coverage = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert found.kept_on_object(found.indices, coverage, 0) == pytest.approx(75.0)


def test_a_map_keeps_the_same_patches_in_every_image():
    found = places([[0.0, 2.0, 1.0], [2.0, 0.0, 1.0]])
    chosen = found.chosen_by(torch.tensor([[0.0, 0.1, 0.7]]))
    assert chosen.tolist() == [[[2]], [[2]]]
    coverage = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert found.kept_on_object(chosen, coverage, 0) == pytest.approx(45.0)


def test_the_scores_are_those_of_the_model(tiny):
    subject = make_subject(tiny)
    found = measure_places(subject)
    single = subject.output(3).selection
    for m in range(3):
        wanted = single.score[m][0] - single.score[m][0].mean()
        torch.testing.assert_close(found.score[3, m], wanted, rtol=1e-4, atol=1e-5)
        assert found.indices[3, m].tolist() == single.indices[m][0].tolist()
    assert not torch.equal(found.empty, found.score[3])
