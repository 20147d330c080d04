"""The losses equal their formulas, written out by hand."""

import math

import pytest
import torch

from modeling.losses import IdentityLoss, ReIDLoss, TripletLoss, batch_hard_triplet
from tests.helpers.batches import labelled, output_with


def make_loss(identity=1.0, triplet=1.0, head_weights=()):
    terms = {"id": (identity, IdentityLoss(label_smoothing=0.1)), "triplet": (triplet, TripletLoss(margin=0.3))}
    return ReIDLoss({name: term for name, term in terms.items() if term[0]}, head_weights=dict(head_weights))


def test_batch_hard_triplet_by_hand():
    """The points lie on a line at 0, 1 (identity 7) and 4, 6 (identity 9)."""
    feature = torch.tensor([[0.0], [1.0], [4.0], [6.0]])
    pid = torch.tensor([7, 7, 9, 9])
    gaps = [1 - 4, 1 - 3, 2 - 3, 2 - 5]  # hardest positive - hardest negative, anchor by anchor
    soft = sum(math.log1p(math.exp(gap)) for gap in gaps) / 4
    assert batch_hard_triplet(feature, pid, margin=None).item() == pytest.approx(soft, rel=1e-5)
    assert batch_hard_triplet(feature, pid, margin=1.5).item() == pytest.approx(0.5 / 4, rel=1e-5)


def test_triplet_of_one_identity_is_zero_and_of_equal_points_has_a_gradient():
    feature = torch.zeros(4, 3, requires_grad=True)
    loss = batch_hard_triplet(feature, torch.tensor([0, 0, 1, 1]), margin=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(0.3) and torch.isfinite(feature.grad).all()
    assert batch_hard_triplet(torch.randn(3, 2), torch.zeros(3), margin=0.3).item() == 0


def test_triplet_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    feature, pid = torch.randn(8, 64) * 10, torch.arange(8) // 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = batch_hard_triplet(feature, pid, margin=100.0)
    assert mixed.item() == batch_hard_triplet(feature, pid, margin=100.0).item()


def test_named_weighted_losses():
    torch.manual_seed(0)
    features = {"ori": torch.randn(4, 8), "sdtps": torch.randn(4, 8)}
    logits = {"ori": torch.randn(4, 5), "sdtps": torch.randn(4, 5)}
    pid = torch.tensor([0, 0, 3, 3])
    output, batch = output_with(features, logits), labelled(pid)
    losses = make_loss(0.25, 2.0, {"sdtps": 3.0})(output, batch)
    assert list(losses) == ["id/ori", "triplet/ori", "id/sdtps", "triplet/sdtps"]
    for head, factor in (("ori", 1.0), ("sdtps", 3.0)):
        target = torch.full((4, 5), 0.1 / 5).scatter(1, pid[:, None], 0.1 / 5 + 0.9)  # smoothing of Szegedy et al.
        cross_entropy = -(target * logits[head].log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(losses[f"id/{head}"], factor * 0.25 * cross_entropy)
        triplet = batch_hard_triplet(features[head], pid, margin=0.3)
        torch.testing.assert_close(losses[f"triplet/{head}"], factor * 2.0 * triplet)
    assert list(make_loss(triplet=0)(output, batch)) == ["id/ori", "id/sdtps"]


def test_samples_that_are_not_present_are_neither_anchor_nor_positive_nor_negative():
    """The points are 0, 1 (identity 7), 4, 6 (identity 9) and one absent sample of each in the way."""
    feature = torch.tensor([[0.0], [1.0], [4.0], [6.0], [9.0], [0.5]], requires_grad=True)
    pid, present = torch.tensor([7, 7, 9, 9, 7, 9]), torch.tensor([True] * 4 + [False] * 2)
    loss = batch_hard_triplet(feature, pid, margin=1.5, present=present)
    assert loss.item() == pytest.approx(0.5 / 4, rel=1e-5)  # as above
    loss.backward()
    assert not feature.grad[4:].any()


def test_the_losses_of_a_head_are_means_over_the_samples_that_are_present():
    torch.manual_seed(0)
    features, logits, pid = torch.randn(4, 8), torch.randn(4, 5, requires_grad=True), torch.tensor([0, 0, 3, 3])
    present, loss = torch.tensor([True, False, True, True]), make_loss()
    both = output_with({"a": features, "b": features}, {"a": logits, "b": logits}, {"a": present})
    found = loss(both, labelled(pid))
    alone = loss(output_with({"a": features[present]}, {"a": logits[present]}), labelled(pid[present]))
    everyone = loss(output_with({"b": features}, {"b": logits}), labelled(pid))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in (alone | everyone).items()}
    )
    nobody = {"a": torch.zeros(4, dtype=torch.bool)}
    nobody = loss(output_with({"a": features}, {"a": logits}, nobody), labelled(pid))
    sum(nobody.values()).backward()
    assert [value.item() for value in nobody.values()] == [0, 0] and not logits.grad.any()
