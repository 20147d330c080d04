"""The mask of the object goes where each image goes, and the random numbers do not depend on it."""

import numpy as np
import pytest
import torch

from data.loading.augment import TrainAugment, normalize

B, M, H, W, PAD = 8, 3, 14, 10, 3
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (B, M, 3, H, W), dtype=torch.uint8, generator=GENERATOR)
MASK = torch.randint(1, 256, (B, H, W), dtype=torch.uint8, generator=GENERATOR)  # 0 comes from padding and erasing only
PRESENT = torch.ones(B, M, dtype=torch.bool)


def augment(mask, *, present=PRESENT, num_processes=1, sync=True, flip_prob=0.5, pad_pixels=PAD, erase_prob=0.7):
    """Augment IMAGES, each process its part; return the images, the masks and the states of the generators.

    Without a mask the transform is called as one that knows of none.
    """
    parts = []
    for rank in range(num_processes):
        transform = TrainAugment(
            flip_prob=flip_prob, pad_pixels=pad_pixels, erase_prob=erase_prob, mean=MEAN, std=STD, sync_geometry=sync,
            modality_dropout=0.0, process_rank=rank, num_processes=num_processes,
        )  # fmt: skip
        images, masks, is_present = (
            None if values is None else values.chunk(num_processes)[rank] for values in (IMAGES, mask, present)
        )
        generator = torch.Generator().manual_seed(1)
        if mask is None:
            result = transform(images, is_present, generator), None
        else:
            result = transform.with_mask(images, masks, is_present, generator)
        parts.append((*result, generator.get_state()))
    images, masks, states = zip(*parts, strict=True)
    return torch.cat(images), None if mask is None else torch.cat(masks), states


def windows(plane):
    """List the crops of a padded plane (..., H, W) and of its mirror image with numpy, one after the other."""
    border = [(0, 0)] * (plane.ndim - 2) + [(PAD, PAD)] * 2
    return [
        np.pad(source, border)[..., top : top + H, left : left + W]
        for source in (plane, plane[..., ::-1])
        for top in range(2 * PAD + 1)
        for left in range(2 * PAD + 1)
    ]


def reference(moved, augmented):
    """Return the masks (B, M, H, W) that follow from images that were only moved, and that were erased as well.

    Which window of its source an image shows is found by comparing all, so that no random number is read.
    """
    expected = np.empty((B, M, H, W), np.uint8)
    for sample in range(B):
        of_mask = windows(MASK[sample].numpy())
        for modality in range(M):
            of_image = torch.from_numpy(np.stack(windows(IMAGES[sample, modality].numpy())))
            of_image = normalize(of_image[None], torch.ones(1, len(of_image), dtype=torch.bool), mean=MEAN, std=STD)[0]
            shown = (of_image == moved[sample, modality]).flatten(1).all(1).nonzero()
            assert len(shown) == 1
            erased = (augmented[sample, modality] != moved[sample, modality]).any(0).numpy()
            expected[sample, modality] = np.where(erased, 0, of_mask[shown.item()])
    return expected


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("sync", [True, False])
def test_the_mask_is_flipped_cropped_and_erased_with_each_image(sync, num_processes):
    options = {"sync": sync, "num_processes": num_processes}
    images, masks, _ = augment(MASK, **options)
    assert masks.dtype == torch.uint8
    np.testing.assert_array_equal(masks.numpy(), reference(augment(None, **options, erase_prob=0.0)[0], images))
    assert (masks == masks[:, :1]).all() == sync
    assert torch.equal(masks, augment(MASK, sync=sync)[1]), "the number of processes matters"


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    "steps",
    [{}, {"erase_prob": 0.0}, {"flip_prob": 0.0, "pad_pixels": 0}],
    ids=["all", "only moved", "only erased"],
)
def test_images_and_draws_are_the_same_with_a_mask_and_without(sync, num_processes, steps):
    options = {"sync": sync, "num_processes": num_processes} | steps
    images, masks, states = augment(MASK, **options)
    plain, _, plain_states = augment(None, **options)
    assert torch.equal(images, plain) and images.stride() == plain.stride()
    assert masks.shape == (B, M, H, W)
    assert all(map(torch.equal, states, plain_states))


def test_without_random_steps_the_mask_is_repeated():
    masks = augment(MASK, flip_prob=0.0, pad_pixels=0, erase_prob=0.0)[1]
    assert torch.equal(masks, MASK[:, None].expand(B, M, H, W))


def test_the_mask_of_an_absent_modality_is_moved_but_not_erased():
    present = PRESENT.clone()
    present[:, 1] = False
    masks, moved = augment(MASK, present=present, erase_prob=1.0)[1], augment(MASK, erase_prob=0.0)[1]
    assert torch.equal(masks[:, 1], moved[:, 1])
    assert ((masks != moved)[:, [0, 2]].flatten(2).any(-1)).all()


def test_the_mask_that_was_given_is_left_alone():
    copied = MASK.clone()
    augment(MASK, erase_prob=1.0)
    augment(MASK, flip_prob=0.0, pad_pixels=0, erase_prob=1.0)
    assert torch.equal(MASK, copied)
