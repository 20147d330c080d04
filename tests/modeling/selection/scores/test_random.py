"""Random scores repeat where they should, and differ where they should."""

import torch

from modeling.selection import TokenInfo
from modeling.selection.scores.random import FixedScore, RandomScore, uniform_by_index

WORD = 2**64 - 1


def split_mix(counter):
    """Return the output of SplitMix64 number `counter` of the seed 0, with Python's integers."""
    state = (counter * 0x9E3779B97F4A7C15) & WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
    return state ^ (state >> 31)


def test_it_is_split_mix_64():
    assert split_mix(1) == 0xE220A8397B1DCDAF, "the first output that is published for the seed 0"
    found = uniform_by_index(torch.tensor([0, 3, 10**6]), (2, 5))
    for row, index in enumerate([0, 3, 10**6]):
        wanted = [(split_mix(index * 10 + place + 1) >> 40) / 2**24 for place in range(10)]
        assert found[row].flatten().tolist() == wanted


def test_in_the_evaluation_an_image_is_scored_alike_in_every_batch():
    score, index = RandomScore().eval(), torch.arange(128)
    whole = score(torch.zeros(128, 3, 9, 2), None, TokenInfo(index=index)).value
    for size in (1, 7):
        for start in range(0, 128, size):
            part = index[start : start + size]
            value = score(torch.zeros(len(part), 3, 9, 2), None, TokenInfo(index=part)).value
            assert torch.equal(value, whole[start : start + size])
    assert len(whole.unique()) > 0.99 * whole.numel(), "images, modalities and patches differ"


def test_it_is_uniform():
    value = uniform_by_index(torch.arange(1000), (3, 16))
    shares = torch.histc(value, bins=10, min=0, max=1) / value.numel()
    assert (shares - 0.1).abs().max() < 0.005
    kept = value.argsort(dim=-1)[..., :4]
    counts = torch.bincount(kept.flatten(), minlength=16) / kept.numel()
    assert (counts - 1 / 16).abs().max() < 0.006, "no place is preferred"


def test_in_training_it_is_another_draw_in_each_call():
    score, tokens, info = RandomScore().train(), torch.zeros(2, 3, 9, 2), TokenInfo(index=torch.arange(2))
    torch.manual_seed(1)
    first, second = score(tokens, None, info).value, score(tokens, None, info).value
    torch.manual_seed(1)
    assert torch.equal(score(tokens, None, info).value, first) and not torch.equal(first, second)


def test_fixed_places_are_drawn_once_and_saved():
    torch.manual_seed(1)
    one, other = FixedScore(num_patches=8), FixedScore(num_patches=8)
    value = one(torch.zeros(4, 3, 9, 2)).value
    assert value.shape == (4, 3, 8) and torch.equal(value, value[:1, :1].expand_as(value))
    assert not torch.equal(one.value, other.value)
    torch.manual_seed(1)
    assert torch.equal(FixedScore(num_patches=8).value, one.value), "the seed decides"
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.value, other.value)
    assert torch.equal(one.train()(torch.zeros(4, 3, 9, 2)).value, value), "training keeps the same places"
