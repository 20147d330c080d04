"""The schedule matches lists worked by hand and timm's scheduler, which the original uses."""

from functools import partial

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from solver.schedule import EpochSchedule, lr_factor, lr_noise, original_lr


def make_optimizer(*rates):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": r, "base_lr": r} for r in rates])


def test_the_factor_is_linear_then_cosine():
    found = [lr_factor(e, warmup_epochs=4, max_epochs=9, warmup_start=0.2, min_factor=0.1) for e in range(9)]
    assert found == pytest.approx(
        [
            0.2,  # warmup_start
            0.4,  # 0.2 + 0.8 x 1/4
            0.6,
            0.8,
            1.0,  # epoch = warmup_epochs
            0.868198,  # 0.1 + 0.9 (1 + cos 45) / 2
            0.55,  # midpoint of 1 and 0.1
            0.231802,  # 0.1 + 0.9 (1 + cos 135) / 2
            0.1,  # min_factor at the last epoch
        ],
        abs=1e-6,
    )


@pytest.mark.parametrize(
    ("warmup", "epochs", "expected"),
    [(0, 1, [1.0]), (0, 3, [1.0, 0.5, 0.0]), (1, 2, [0.1, 1.0]), (2, 2, [0.1, 0.55]), (2, 4, [0.1, 0.55, 1.0, 0.0])],
)
def test_short_schedules_match_lists_worked_by_hand(warmup, epochs, expected):
    found = [
        lr_factor(e, warmup_epochs=warmup, max_epochs=epochs, warmup_start=0.1, min_factor=0) for e in range(epochs)
    ]
    assert found == pytest.approx(expected)


def test_the_published_recipe_ends_where_it_says():
    factor = partial(lr_factor, warmup_epochs=10, max_epochs=50, warmup_start=0.1, min_factor=0.001)
    assert (factor(0), factor(10), factor(49)) == (0.1, 1.0, 0.001)
    assert all(factor(e) > factor(e + 1) for e in range(10, 49))


def test_the_original_warms_every_group_up_from_one_absolute_rate():
    """Rates 1 and 0.02 start from 0.1 over two epochs; the cosine has been running since epoch 0 of 4, down to 0.01."""
    rate = partial(original_lr, warmup_epochs=2, max_epochs=4, warmup_lr=0.1, min_lr=0.01)
    # 0.1, (0.1 + 1) / 2, then 0.01 + 0.99 (1 + cos 90) / 2 and 0.01 + 0.99 (1 + cos 135) / 2
    assert [rate(e, 1.0) for e in range(5)] == pytest.approx([0.1, 0.55, 0.505, 0.154982, 0.01], abs=1e-6)
    # 0.1, (0.1 + 0.02) / 2, then 0.01 + 0.01 (1 + cos 90) / 2 and 0.01 + 0.01 (1 + cos 135) / 2
    assert [rate(e, 0.02) for e in range(5)] == pytest.approx([0.1, 0.06, 0.015, 0.011464, 0.01], abs=1e-6)


def test_the_original_with_noise_is_timms_schedule():
    """This is the CLIP recipe: BASE_LR 3.5e-4, biases at twice that, tower 5e-6, warm-up from 0.1 x BASE_LR."""
    rates = (5e-6, 3.5e-4, 7e-4)
    reference = make_optimizer(*rates)
    timms = CosineLRScheduler(
        reference, t_initial=50, lr_min=3.5e-7, warmup_t=10, warmup_lr_init=3.5e-5, cycle_limit=1,
        noise_range_t=0, noise_pct=0.67, noise_std=1.0, noise_seed=1111,
    )  # fmt: skip
    optimizer = make_optimizer(*rates)
    schedule = EpochSchedule(
        optimizer,
        lambda epoch: 1 + lr_noise(epoch, 1111, 0.67),
        rate=partial(original_lr, warmup_epochs=10, max_epochs=50, warmup_lr=3.5e-5, min_lr=3.5e-7),
    )
    noisy = 0
    for epoch in range(52):
        timms.step(epoch)
        schedule.set_epoch(epoch)
        found, expected = ([group["lr"] for group in o.param_groups] for o in (optimizer, reference))
        assert found == pytest.approx(expected, rel=1e-12)
        noisy += abs(found[1] / schedule.rate(epoch, rates[1]) - 1) > 0.3
    assert noisy > 10  # noise within +-0.67 is beyond +-0.3 in about half of the epochs


def test_the_noise_is_bounded_and_a_function_of_seed_and_epoch():
    drawn = [lr_noise(epoch, 1111, 0.67) for epoch in range(100)]
    torch.rand(5)  # the global generator plays no part
    assert drawn == [lr_noise(epoch, 1111, 0.67) for epoch in range(100)]
    assert 0.6 < max(map(abs, drawn)) < 0.67
    assert min(drawn) < 0 < max(drawn)
    assert drawn[:5] != [lr_noise(epoch, 7, 0.67) for epoch in range(5)]
    # What is beyond the amplitude is drawn again; the rest stays.
    wide = [lr_noise(epoch, 1111, 10.0) for epoch in range(100)]
    assert all(abs(b) >= 0.67 for a, b in zip(drawn, wide, strict=True) if a != b) and drawn != wide


def test_the_schedule_sets_each_group_from_its_own_rate_and_keeps_no_state():
    optimizer = make_optimizer(1.0, 0.1)
    schedule = EpochSchedule(optimizer, lambda epoch: 0.5**epoch)
    for epoch in (2, 0, 2):
        schedule.set_epoch(epoch)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5**epoch, 0.1 * 0.5**epoch])
        assert [group["base_lr"] for group in optimizer.param_groups] == [1.0, 0.1]
