"""A data set is found by its name."""

import pytest

from data.datasets import DATASETS, find_dataset
from utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("RGBNT201", "camera"),
        ("RGBNT100", "camera"),
        ("MSVR310", "scene"),
        ("WMVeID863", "camera"),
        ("manifest", None),
        ("synthetic", "camera"),
    ],
)
def test_each_data_set_is_found_by_its_name_in_any_case(name, protocol):
    for spelling in (name, name.lower(), name.upper()):
        dataset = find_dataset(spelling)
        assert (dataset, dataset.name, dataset.protocol) == (DATASETS[name], name, protocol)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError) as error:
        find_dataset("Market1501")
    for part in ("DATASETS.NAMES", "'Market1501'", "synthetic", *DATASETS):
        assert part in str(error.value)
