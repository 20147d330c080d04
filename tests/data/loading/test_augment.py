"""The batched transforms agree with torchvision, brute force and timm's random erasing."""

import random

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing
from torch.nn import functional as F
from torchvision.transforms import functional as tv

from data.loading.augment import NOISE_STRIDE, TrainAugment, as_masks, draw_boxes, draw_noise, normalize

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
B, M, H, W = 6, 3, 12, 8
CPU = torch.device("cpu")


def make_images(batch=B, height=H, width=W, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, M, 3, height, width), dtype=torch.uint8, generator=generator)


def same_in_every_modality(images):
    return images[:, :1].expand_as(images).contiguous()


def augment(
    images, *, present=None, seed=0, flip_prob=0.0, pad_pixels=0, erase_prob=0.0, sync_geometry=True,
    process_rank=0, num_processes=1,
):  # fmt: skip
    transform = TrainAugment(
        flip_prob=flip_prob,
        pad_pixels=pad_pixels,
        erase_prob=erase_prob,
        mean=list(MEAN),
        std=list(STD),
        sync_geometry=sync_geometry,
        modality_dropout=0.0,
        process_rank=process_rank,
        num_processes=num_processes,
    )
    present = torch.ones(images.shape[:2], dtype=torch.bool) if present is None else present
    return transform(images, present, torch.Generator().manual_seed(seed))


def reference_normalize(images):
    """Normalise with torchvision, image by image."""
    flat = [tv.normalize(image.float() / 255, MEAN, STD) for image in images.flatten(0, 1)]
    return torch.stack(flat).view(images.shape)


def kolmogorov_smirnov(a, b):
    """Return the largest distance between two empirical distribution functions."""
    a, b = np.sort(a), np.sort(b)
    points = np.concatenate([a, b])
    return np.abs(np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)).max()


# ------------------------------------------------------------------------------------------------ normalisation


def test_normalisation_equals_torchvisions():
    images = make_images()
    actual = normalize(images, torch.ones(B, M, dtype=torch.bool), mean=list(MEAN), std=list(STD))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, reference_normalize(images), rtol=0, atol=2e-6)


def test_an_absent_modality_is_zero_whatever_its_pixels():
    images = make_images()
    present = torch.tensor([[True, False, True]]).repeat(B, 1)
    present[2] = torch.tensor([False, True, False])
    actual = normalize(images, present, mean=MEAN, std=STD)
    expected = reference_normalize(images)
    torch.testing.assert_close(actual[present], expected[present], rtol=0, atol=2e-6)
    assert (actual[~present] == 0).all()


def test_without_random_steps_only_normalisation_remains():
    images = make_images()
    expected = normalize(images, torch.ones(B, M, dtype=torch.bool), mean=MEAN, std=STD)
    assert torch.equal(augment(images), expected)


def test_the_input_is_left_alone():
    images = make_images()
    copied = images.clone()
    augment(images, flip_prob=0.5, pad_pixels=2, erase_prob=1.0)
    assert torch.equal(images, copied)


# ------------------------------------------------------------------------------------------------- flip and crop


def test_a_certain_flip_mirrors_left_and_right():
    images = make_images()
    assert torch.equal(augment(images, flip_prob=1.0), augment(images.flip(-1)))


@pytest.mark.parametrize("sync", [True, False])
def test_every_output_is_a_window_of_the_padded_flipped_or_plain_image(sync):
    """Compare with all windows by brute force; each window is about equally frequent."""
    pad, batch = 2, 2000
    images = make_images(1).expand(batch, -1, -1, -1, -1).contiguous()
    actual = augment(images, flip_prob=0.5, pad_pixels=pad, sync_geometry=sync)
    padded = F.pad(images[0], (pad,) * 4)  # black before the normalisation
    windows = torch.stack(
        [
            source[..., y : y + H, x : x + W]
            for source in (padded, F.pad(images[0].flip(-1), (pad,) * 4))
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
        ],
        dim=1,
    )  # (M, 50, 3, H, W)
    expected = reference_normalize(windows)
    drawn = []
    for m in range(M):
        pair = actual[:, m].flatten(1), expected[m].flatten(1)
        distance = torch.cdist(*pair, compute_mode="donot_use_mm_for_euclid_dist")  # (batch, 50), exact near 0
        nearest = distance.min(dim=1)
        assert nearest.values.max() < 1e-4 < 1 < distance.topk(2, dim=1, largest=False).values[:, 1].min()
        counts = torch.bincount(nearest.indices, minlength=50)
        chi_square = ((counts - batch / 50) ** 2 / (batch / 50)).sum()
        assert chi_square < 100  # 49 degrees of freedom: exceeded once in 25 000 times
        drawn.append(nearest.indices)
    agreement = (drawn[0] == drawn[1]).float().mean()
    assert agreement == 1 if sync else agreement < 0.1


def test_the_flip_has_the_given_probability():
    images = make_images(2000, 2, 4)
    flipped = (augment(images, flip_prob=0.3, sync_geometry=False) == augment(images.flip(-1))).flatten(2).all(-1)
    assert flipped.float().mean().item() == pytest.approx(0.3, abs=0.03)  # 5 standard deviations of 6000 draws


def test_wide_images_of_vehicles_keep_their_shape():
    images = make_images(height=8, width=20)
    assert augment(images, flip_prob=0.5, pad_pixels=3, erase_prob=1.0).shape == images.shape


# ------------------------------------------------------------------------------------------------ random erasing


def draw_masks(count, size_hw):
    """Draw rectangles as masks (count, H, W)."""
    return as_masks(draw_boxes((count,), size_hw, torch.Generator().manual_seed(0), CPU), size_hw)


def bounding_boxes(masks):
    """Return top, left, height and width (N, 4) of rectangles in masks (N, H, W); fail if one is not a rectangle."""
    boxes = []
    for mask in np.asarray(masks):
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (y[0], x[0], y[-1] - y[0] + 1, x[-1] - x[0] + 1) if len(y) else (0, 0, 0, 0)
        assert mask.sum() == box[2] * box[3]
        boxes.append(box)
    return np.array(boxes)


@pytest.mark.parametrize("size_hw", [(64, 32), (32, 64)])
def test_rectangles_are_distributed_as_timms(size_hw):
    """Two samples of 3000 from equal distributions differ by more than 0.06 once in 20 000 times."""
    count = 3000
    random.seed(0)  # timm draws its rectangles from it
    torch.manual_seed(0)  # and from this its noise, of which a value could be exactly 0
    erase = RandomErasing(probability=1.0, mode="pixel", max_count=1, device="cpu")
    theirs = bounding_boxes([erase(torch.zeros(1, *size_hw))[0] != 0 for _ in range(count)])
    ours = bounding_boxes(draw_masks(count, size_hw))
    for their_values, our_values in zip(
        (*theirs.T, theirs[:, 2] * theirs[:, 3]), (*ours.T, ours[:, 2] * ours[:, 3]), strict=True
    ):
        assert kolmogorov_smirnov(their_values, our_values) < 0.06


def test_where_no_try_fits_nothing_is_erased():
    """No rectangle is lower than an image of 1 x 1000, so timm gives up after ten tries as well."""
    assert not draw_masks(50, (1, 1000)).any()


def test_rectangles_lie_inside_up_to_the_edges():
    boxes = bounding_boxes(draw_masks(4000, (10, 10)))
    assert (boxes[:, 2:] >= 1).all() and (boxes[:, 2:] <= 9).all()
    ends = boxes[:, :2] + boxes[:, 2:]
    assert boxes[:, :2].min() == 0 and ends.max() == 10


def erased(images, **kwargs):
    """Return the mask (B, M, H, W) of the pixels that erasing changed, and the augmented images."""
    actual = augment(images, erase_prob=kwargs.pop("erase_prob", 1.0), **kwargs)
    return (actual != augment(images)).any(2), actual


def test_noise_is_standard_normal():
    mask, actual = erased(make_images(64, 64, 32))
    values = np.sort(actual.movedim(2, -1)[mask].flatten().numpy())
    assert len(values) > 100_000
    normal = torch.special.ndtr(torch.from_numpy(values)).numpy()
    assert np.abs(normal - np.arange(len(values)) / len(values)).max() < 0.01


def test_erasing_has_the_given_probability():
    mask, _ = erased(make_images(1000, 8, 8), erase_prob=0.3, sync_geometry=False)
    assert mask.flatten(2).any(-1).float().mean().item() == pytest.approx(0.3, abs=0.045)  # 5 standard deviations


def test_an_absent_modality_is_never_erased():
    present = torch.tensor([[True, False, True]]).repeat(B, 1)
    actual = augment(make_images(), present=present, flip_prob=0.5, pad_pixels=2, erase_prob=1.0)
    assert (actual[:, 1] == 0).all() and (actual[:, [0, 2]] != 0).any()


def test_noise_differs_between_channels_modalities_and_samples():
    """Every pair of noise planes at equal pixels is uncorrelated, and none repeats another."""
    batch, height, width = 8, 64, 32
    mask, actual = erased(make_images(batch, height, width))
    planes, area = actual.view(-1, height, width), mask[:, :, None].expand_as(actual).reshape(-1, height, width)
    for i in range(len(planes)):
        for j in range(i):
            both = area[i] & area[j]
            if both.sum() > 200:
                a, b = planes[i][both], planes[j][both]
                correlation = (a * b).mean() / (a.std() * b.std())
                assert abs(correlation) < 5 / both.sum().sqrt()
                assert (a != b).float().mean() > 0.99


def test_noise_repeats_between_samples_only_when_shifted():
    """The positions in the table that the values come from are those that the docstring of `draw_noise` describes."""
    noise = draw_noise((6, M, 3, 64, 32), torch.Generator().manual_seed(0), CPU)
    table = torch.arange(noise.untyped_storage().nbytes() // noise.element_size())
    positions = table.as_strided(noise.shape, noise.stride(), noise.storage_offset())
    for sample in positions:
        assert sample.unique().numel() == M * 3 * 64 * 32
    assert (positions[1:] - positions[:-1] == NOISE_STRIDE).all()
    assert positions[0, 0, 0, 0, 0] == 0 and positions[-1, -1, -1, -1, -1] == table[-1]


# ---------------------------------------------------------------------------------------------------- geometry


def test_shared_geometry_keeps_modalities_aligned():
    images = same_in_every_modality(make_images(32, 32, 16))
    moved = augment(images, flip_prob=0.5, pad_pixels=4)
    assert torch.equal(moved, same_in_every_modality(moved))
    mask, _ = erased(images, erase_prob=0.5)
    assert torch.equal(mask[:, 0], mask[:, 1]) and torch.equal(mask[:, 0], mask[:, 2])
    assert mask.flatten(1).any(1).float().mean() not in (0, 1)


def test_separate_geometry_moves_modalities_apart():
    images = same_in_every_modality(make_images(32, 32, 16))
    moved = augment(images, flip_prob=0.5, pad_pixels=4, sync_geometry=False)
    assert (moved[:, 0] != moved[:, 1]).flatten(1).any(1).float().mean() > 0.9
    mask, _ = erased(images, sync_geometry=False)
    assert (mask[:, 0] != mask[:, 1]).flatten(1).any(1).float().mean() > 0.9


# ------------------------------------------------------------------------------------------------- random numbers


@pytest.mark.parametrize("sync", [True, False])
def test_everything_is_drawn_from_the_generator(sync):
    images, kwargs = make_images(), {"flip_prob": 0.5, "pad_pixels": 2, "erase_prob": 0.5, "sync_geometry": sync}
    state = torch.get_rng_state()
    first = augment(images, seed=1, **kwargs)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(augment(images, seed=1, **kwargs), first)
    assert not torch.equal(augment(images, seed=2, **kwargs), first)


@pytest.mark.parametrize("sync", [True, False])
def test_processes_augment_their_shares_as_one_process_would_the_whole(sync):
    images = make_images()
    present = torch.rand(B, M, generator=torch.Generator().manual_seed(3)) < 0.7
    options = {"flip_prob": 0.5, "pad_pixels": 3, "erase_prob": 0.7, "sync_geometry": sync}
    whole = augment(images, present=present, **options)
    parts = [
        augment(images[part], present=present[part], **options, process_rank=rank, num_processes=3)
        for rank, part in enumerate((slice(0, 2), slice(2, 4), slice(4, 6)))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_constants_made_in_inference_mode_serve_training():
    """The first use of a mean may be in an evaluation; later batches must still carry gradients."""
    images, present, std = make_images(1), torch.ones(1, M, dtype=torch.bool), (0.11, 0.12, 0.13)
    with torch.inference_mode():
        normalize(images, present, mean=MEAN, std=std)
    weight = torch.ones(1, requires_grad=True)
    (normalize(images, present, mean=MEAN, std=std) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sync", [True, False])
def test_nothing_waits_for_the_device(sync):
    images, present = make_images().cuda(), torch.ones(B, M, dtype=torch.bool).cuda()
    transform = dropping(0.0, sync_geometry=sync)
    generator = torch.Generator("cuda").manual_seed(0)
    mask = images[:, 0, 0].contiguous()
    transform(images, present, generator)  # constants go to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        transform(images, present, generator)
        transform.with_mask(images, mask, present, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def dropping(rate, sync_geometry=True):
    return TrainAugment(
        flip_prob=0.5, pad_pixels=2, erase_prob=0.5, mean=MEAN, std=STD, sync_geometry=sync_geometry,
        modality_dropout=rate, process_rank=0, num_processes=1,
    )  # fmt: skip


def test_modalities_are_dropped_at_the_rate_and_a_sample_never_loses_all():
    present = torch.ones(20_000, M, dtype=torch.bool)
    present[10_000:, 0] = False
    remaining = dropping(0.4).drop_modalities(present, torch.Generator().manual_seed(0))
    assert remaining.any(dim=1).all() and not remaining[10_000:, 0].any(), "what is absent stays absent"
    # A sample that would lose all its k modalities keeps them: lost is 0.4 - 0.4 ** k.
    lost = (present & ~remaining).float()
    assert lost[:10_000].mean().item() == pytest.approx(0.4 - 0.4**3, abs=0.01)
    assert lost[10_000:, 1:].mean().item() == pytest.approx(0.4 - 0.4**2, abs=0.01)


def test_without_dropout_nothing_is_drawn():
    present, generator = torch.ones(B, M, dtype=torch.bool), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert dropping(0.0).drop_modalities(present, generator) is present
    assert torch.equal(generator.get_state(), before)
