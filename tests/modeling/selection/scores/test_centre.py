"""The centre score equals a case worked by hand."""

import math

import pytest
import torch

from modeling.selection.scores.centre import CentreScore


def test_distance_by_hand():
    """The grid has three rows and three columns, and a row counts 0.3 of a column."""
    value = CentreScore(grid=(3, 3))(torch.zeros(2, 3, 10, 4)).value
    corner, side, above = math.hypot(1, 0.3), 1.0, 0.3
    distance = torch.tensor([[corner, above, corner], [side, 0, side], [corner, above, corner]])
    assert value.shape == (2, 3, 9)
    torch.testing.assert_close(value[1, 2].view(3, 3), 1 - distance / corner)


@pytest.mark.parametrize("grid", [(16, 8), (8, 16), (1, 1)])
def test_the_middle_column_is_best_in_every_row(grid):
    value = CentreScore(grid=grid).value.view(grid)
    assert torch.isfinite(value).all() and (value == value.flip(1)).all() and (value == value.flip(0)).all()
    assert (value.argmax(dim=1) == (grid[1] - 1) // 2).all()
