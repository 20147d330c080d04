"""Query, gallery and validation are positions in a list of samples, which here have no files."""

from pathlib import Path

import pytest

from data.sample import Sample
from data.splits import ReIDData, hold_out, make_eval_split
from utils.errors import UserError


def sample(pid, camera=0, scene=0):
    return Sample((Path(f"{pid}_{camera}_{scene}.jpg"), None, None), pid=pid, camera=camera, scene=scene)


def test_a_sample_in_query_and_gallery_is_listed_once():
    a, b, c = sample(1), sample(2), sample(1, camera=1)
    split = make_eval_split("test", [a, b], [b, c, a], "camera")
    assert split.samples == (a, b, c)
    assert split.query.tolist() == [0, 1] and split.gallery.tolist() == [1, 2, 0]
    assert split.pids.tolist() == [1, 2, 1]


def test_groups_follow_the_protocol():
    samples = [sample(1, camera=3, scene=7), sample(1, camera=4, scene=8)]
    groups = {name: make_eval_split("test", samples, samples, name).groups.tolist() for name in ("camera", "scene")}
    assert groups == {"camera": [3, 4], "scene": [7, 8]}


def test_a_query_needs_its_identity_in_another_group():
    same, other = sample(1, camera=0, scene=1), sample(1, camera=0, scene=2)
    make_eval_split("test", [same], [other], "scene").check_matches()
    with pytest.raises(UserError, match=r"No query of the test set has a match.*another camera.*1 queries, 1 gallery"):
        make_eval_split("test", [same], [other], "camera").check_matches()
    with pytest.raises(UserError, match="2 camera"):
        make_eval_split("test", [same], [sample(2, camera=1)], "camera").check_matches()


def test_labels_are_positions_among_the_sorted_identities():
    train = (sample(9), sample(4, camera=2), sample(9, camera=1))
    data = ReIDData(train, make_eval_split("test", train, train, "camera"), None)
    assert data.train_pids == [4, 9] and data.labels.tolist() == [1, 0, 1] and data.num_cameras == 3


def test_whole_identities_are_held_out():
    train = [sample(pid, camera=camera) for pid in range(6) for camera in range(1 if pid == 5 else 2)]
    remaining, validation = hold_out(train, 2, "camera")
    held = {s.pid for s in validation.samples}
    assert len(held) == 2 and 5 not in held, "identity 5 has no match in another camera"
    assert remaining == [s for s in train if s.pid not in held]
    assert list(validation.samples) == [s for s in train if s.pid in held]
    assert validation.query.tolist() == validation.gallery.tolist() == [0, 1, 2, 3]
    validation.check_matches()
    again = hold_out(train, 2, "camera")[1]
    assert again.samples == validation.samples, "every run holds out the same identities"


@pytest.mark.parametrize("num_ids", [3, 4])
def test_more_than_can_be_held_out_is_refused(num_ids):
    """Two of three identities can be validated on."""
    train = [sample(0), sample(0, camera=1), sample(1), sample(1, camera=1), sample(2)]
    with pytest.raises(UserError, match=rf"VAL_IDS is {num_ids}.* 3 training identities 2 are seen by more than one"):
        hold_out(train, num_ids, "camera")


def test_one_identity_is_left_to_train():
    train = [sample(pid, camera=camera) for pid in range(2) for camera in range(2)]
    with pytest.raises(UserError, match="at least one must be left to train"):
        hold_out(train, 2, "camera")
