"""The synthetic pictures show persons, masks, cameras and faults as specified, drawn with the right geometry."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from data.sample import MODALITIES
from data.synthetic import SyntheticSpec, sample_renderer
from data.synthetic.canvas import Canvas, capsule
from data.synthetic.conditions import RUINS, SCENARIOS, Conditions, draw_conditions
from data.synthetic.identity import SLOTS, make_identity
from data.synthetic.obstacles import MAX_COVER
from data.synthetic.person import Pose, View, draw_person
from data.synthetic.render import render
from data.synthetic.sample_renderer import identity_cameras, make_sample
from data.synthetic.texture import BACK, Field, Texture, second_colour

CLEAN = SyntheticSpec(
    train_ids=48, test_ids=20, train_images=768, test_images=240, size_hw=(128, 64), difficulty=0.0, off_centre=0.0,
    seed=0,
)  # fmt: skip
HARD = replace(CLEAN, difficulty=1.0, size_hw=(64, 32))


@pytest.mark.parametrize("size_hw", [(16, 16), (33, 70), (128, 256), (200, 20)])
def test_any_size_can_be_drawn(size_hw):
    sample = make_sample(replace(HARD, size_hw=size_hw), "test", 0, 0)
    assert sample.images["RGB"].shape == (*size_hw, 3)
    assert sample.images["NI"].shape == sample.images["TI"].shape == sample.mask.shape == size_hw


# ---------------------------------------------------------------------------------------------------------- pictures
def test_the_mask_is_where_the_warm_person_is():
    """On clean images TI is brighter inside the mask than outside, and less so when the mask is moved aside."""
    contrast = defaultdict(list)
    for index in range(8):
        sample = make_sample(CLEAN, "train", index, 0)
        warmth, mask = sample.images["TI"].astype(float), sample.mask > 0
        assert 0.08 < mask.mean() < 0.6
        for shift in (-12, 0, 12):
            moved = np.roll(mask, shift, axis=1)
            contrast[shift].append(warmth[moved].mean() - warmth[~moved].mean())
    assert min(contrast[0]) > 15
    assert all(middle > side for shift in (-12, 12) for middle, side in zip(contrast[0], contrast[shift], strict=True))


def test_the_person_fills_most_of_the_height():
    for difficulty, low in ((0.0, 0.70), (1.0, 0.40)):
        for index in range(12):
            mask = make_sample(replace(CLEAN, difficulty=difficulty, size_hw=(64, 32)), "train", index, 1).mask
            rows = np.flatnonzero(mask.any(axis=1))
            assert low - 0.1 < (rows[-1] - rows[0] + 1) / len(mask) <= 1.0


def views(spec, monkeypatch, count=2):
    """Return the views of the first image of the first identities of both splits."""
    seen = []

    def draw_and_note(canvas, identity, pose, view):
        seen.append(view)
        draw_person(canvas, identity, pose, view)

    with monkeypatch.context() as patch:
        patch.setattr(sample_renderer, "draw_person", draw_and_note)
        for split in ("train", "test"):
            for index in range(count):
                make_sample(spec, split, index, 0)
    return seen


def test_without_off_centre_persons_stand_where_they_stood_before_that_key(monkeypatch):
    """The positions in pixels were recorded at the commit before the key; the pixels of a set follow from them."""
    feet = [view.foot for view in views(replace(HARD, difficulty=0.5), monkeypatch)]
    before = [
        (16.203973350111433, 63.53734875206544),
        (13.317832589328695, 57.04705047474588),
        (14.958380333938466, 61.18287977237873),
        (17.403255151072898, 61.57190610325054),
    ]
    np.testing.assert_allclose(feet, before, rtol=1e-13)


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_off_centre_widens_the_range_of_positions_and_changes_nothing_else(difficulty, monkeypatch):
    """The distance from the centre grows by one factor, from 0.04 to 0.18 of the width up to 0.38."""
    near, half, far = (
        views(replace(HARD, difficulty=difficulty, off_centre=off_centre), monkeypatch, count=20)
        for off_centre in (0.0, 0.5, 1.0)
    )
    aside = np.array([[view.foot[0] / 32 - 0.5 for view in group] for group in (near, half, far)])
    low = 0.04 + 0.14 * difficulty
    np.testing.assert_allclose(aside / [[low], [(low + 0.38) / 2], [0.38]], aside[[0, 0, 0]] / low, atol=1e-12)
    assert abs(aside[2]).max() <= 0.38
    for of_split in (aside[2, :20], aside[2, 20:]):
        assert of_split.min() < -0.3 and of_split.max() > 0.3
    for group in (half, far):
        assert [replace(view, foot=(0, view.foot[1])) for view in group] == [
            replace(view, foot=(0, view.foot[1])) for view in near
        ]


def test_off_centre_leaves_most_of_the_body_in_the_image():
    near, far = (
        [make_sample(replace(CLEAN, off_centre=off_centre), "test", index, 0).mask > 0 for index in range(20)]
        for off_centre in (0.0, 1.0)
    )
    kept = [b.sum() / a.sum() for a, b in zip(near, far, strict=True)]
    assert min(kept) > 0.6 and np.mean(kept) > 0.9
    columns = np.mean(far, axis=(0, 1)).reshape(4, -1).sum(axis=1)
    assert (columns / columns.sum() > 0.1).all(), "a quarter of the width hardly ever shows a person"


def test_pose_view_and_position_change_from_image_to_image():
    masks = [make_sample(CLEAN, "train", 0, number).mask > 0 for number in range(6)]
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.9


def test_the_background_gives_the_camera_away():
    """The nearest neighbour by the pixels at the picture's edges is from the same camera."""
    spec = replace(CLEAN, difficulty=0.5, size_hw=(64, 32))
    edges, cameras = [], []
    for index in range(24):
        for number, camera in enumerate(identity_cameras(spec.seed, "train", index)):
            picture = make_sample(spec, "train", index, number, conditions=Conditions()).images["RGB"].astype(float)
            strips = np.concatenate([picture[:, :6], picture[:, -6:]], axis=1).mean(axis=1)  # (64, 3)
            edges.append(strips.reshape(8, 8, 3).mean(axis=1).ravel())
            cameras.append(camera)
    distance = np.linalg.norm(np.array(edges)[:, None] - np.array(edges), axis=-1)
    np.fill_diagonal(distance, np.inf)
    cameras = np.array(cameras)
    assert np.mean(cameras[distance.argmin(axis=1)] == cameras) > 0.8


def test_occluders_stay_within_their_share():
    covered = [make_sample(HARD, "train", index, 0).covered for index in range(60)]
    assert max(covered) <= MAX_COVER
    assert sum(share > 0.03 for share in covered) > 20
    assert all(make_sample(replace(HARD, difficulty=0.0), "train", index, 0).covered == 0 for index in range(10))


def test_conditions_never_ruin_all_three_modalities():
    rng = np.random.default_rng(0)
    ruined = Counter(draw_conditions(rng, 1.0).ruined for _ in range(4000))
    assert max(map(len, ruined)) == 2
    for modality in MODALITIES:
        share = sum(count for names, count in ruined.items() if modality in names) / 4000
        assert 0.2 < share < 0.6
    assert all(not draw_conditions(rng, 0.0).ruined for _ in range(200))
    assert not any({"glare", "out_of_reach"} <= set(faults) for faults, _ in SCENARIOS)


@pytest.mark.parametrize("faults", [faults for faults, _ in SCENARIOS], ids="+".join)
def test_faults_take_the_contrast_of_what_they_ruin_and_leave_the_rest(faults):
    """The share of the clean picture's contrast that is left is the slope of a regression on the clean picture."""
    conditions = Conditions(**dict.fromkeys(faults, 0.75))
    assert conditions.ruined == {RUINS[fault] for fault in faults}
    contrast = defaultdict(list)
    for index in range(4):
        clean, spoilt = (make_sample(CLEAN, "train", index, 0, conditions=c).images for c in (Conditions(), conditions))
        for name in MODALITIES:
            x, y = clean[name].ravel().astype(float), spoilt[name].ravel().astype(float)
            contrast[name].append(np.cov(x, y)[0, 1] / x.var())
    for name in MODALITIES:
        assert np.mean(contrast[name]) < 0.35 if name in conditions.ruined else np.mean(contrast[name]) > 0.6


def test_blur_smooths():
    sharp, blurred = (
        np.abs(np.diff(make_sample(CLEAN, "train", 0, 0, conditions=c).images["RGB"].astype(float), axis=1)).mean()
        for c in (Conditions(), Conditions(motion=0.03, sharpness=0.4))
    )
    assert blurred < 0.7 * sharp


# ----------------------------------------------------------------------------------------------------------- drawing
def colour_count(yaw: float, texture: Texture) -> int:
    """Count the pixels of the upper garment's second colour, green on a red person, seen at an angle."""
    identity = make_identity(0, 0, 0)
    materials = np.zeros_like(identity.materials)
    materials[..., 0] = 1.0
    materials[SLOTS.index("upper"), 1, :3] = (0, 1, 0)
    looks = tuple(replace(look, texture=texture) for look in identity.looks)
    canvas = Canvas(128, 64)
    pose = Pose(phase=0.0, stride=0.1, swing=0.1, elbow=0.2, lean=0.0)
    shape = replace(identity.shape, bag="none", hair="short")
    person = replace(identity, materials=materials, looks=looks, shape=shape)
    draw_person(canvas, person, pose, View(yaw, elevation=0.1, roll=0.0, height=110, foot=(32, 120)))
    picture = render(canvas, np.zeros((128, 64, 5), np.float32), light_angle=0.0)
    return int((picture[..., 1] > 0.3).sum())


def test_prints_turn_with_the_body():
    chest, back = (Texture(Field(half_s=0.5, centre_s=s, centre_v=0.4, half_v=0.2)) for s in (0.0, BACK))
    assert colour_count(0.0, chest) > 60 and colour_count(0.0, back) == 0
    assert colour_count(np.pi, back) > 60 and colour_count(np.pi, chest) == 0
    assert 0 < colour_count(1.0, chest) < colour_count(0.0, chest)


def test_textures_match_cases_worked_by_hand():
    v = np.array([0.0, 0.125, 0.375, 0.625])
    hoops = Field(wave_v=2.0, threshold=0.5)  # sin(4 pi v): 0, 1, -1, 1
    assert second_colour(np.array(hoops), np.zeros(4), v).tolist() == [False, True, False, True]
    s = np.array([0.25, 0.75, 0.25, 0.75])
    checks = Field(wave_s=1.0, wave_v=1.0, is_product=1.0, threshold=0.0)  # signs of the two sines multiply
    assert second_colour(np.array(checks), s, np.array([0.25, 0.25, 0.75, 0.75])).tolist() == [True, False, False, True]
    back = Field(half_s=0.5, centre_s=BACK)  # s = -3 lies 0.14 from pi across the seam
    assert second_colour(np.array(back), np.array([3.0, -3.0, 2.5, 0.0]), np.zeros(4)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert not second_colour(np.array(Field()), np.linspace(-3, 3, 50), np.linspace(0, 1, 50)).any()


def test_the_frame_of_a_limb_matches_a_case_worked_by_hand():
    """The limb hangs from (10, 20) to (10, 60) and is 5 wide on either side."""
    outline, frame = capsule(np.array([10.0, 20.0]), np.array([10.0, 60.0]), 5.0, 5.0)
    points = np.array([(10, 20, 1), (10, 60, 1), (15, 40, 1), (5, 30, 1)])
    np.testing.assert_allclose(points @ frame.T, [(0, 0), (0, 1), (1, 0.5), (-1, 0.25)], atol=1e-12)
    np.testing.assert_allclose([outline.min(axis=0), outline.max(axis=0)], [(5, 15), (15, 65)], atol=0.1)
