"""Where a table puts its columns, and what it writes."""

import numpy as np
import pytest

from tools.visualize.sheet import short_numbers
from tools.visualize.table import GAP, LEFT, NARROWEST, TOP, Column, Group, Scale, Table

pytest.importorskip("matplotlib")
GRID = (4, 2)


def make_table(size_hw=(64, 32), mask=None):
    rows = [("RGB", True), ("NI", False), ("TI", True)]
    return Table(title="title", subtitle="subtitle", rows=rows, grid=GRID, size_hw=size_hw, mask=mask)


def make_maps(scale, *, notes=(), head=""):
    values = np.linspace(0, 1, 8)
    return Column(head=head, cells=[values, None, values], notes=notes, scale=scale)


def texts(sheet):
    """The texts of a sheet with the place of their anchors in inches from the top left corner."""
    size = np.array([sheet.width, sheet.height])
    return {
        text.get_text(): (np.array([0, 1]) - np.array(text.get_position())) * [-1, 1] * size
        for text in sheet.figure.texts
    }


def test_columns_stand_side_by_side_and_groups_apart():
    scale = Scale("viridis", 0.0, 1.0, "share")
    first, second = (make_maps(scale, head=head) for head in ("one", "two"))
    sheet = make_table((96, 32)).draw([Group("a", [first, second]), Group("b", [make_maps(scale, head="three")])])
    found = texts(sheet)
    pitch = NARROWEST + GAP  # narrow images leave room for the notes
    for name, left in {"a": LEFT, "one": LEFT, "two": LEFT + pitch, "b": LEFT + 2 * pitch + GAP}.items():
        assert found[name][0] == pytest.approx(left)
    assert found["three"][0] == found["b"][0] and found["b"][1] < found["one"][1] < TOP


def test_the_longest_note_makes_room_for_all():
    scale = Scale("viridis", 0.0, 1.0, "share")
    heights = [
        make_table().draw([Group("", [make_maps(scale, notes=[note] * 3)])]).height for note in ("a", "a\nb", "a\nb\nc")
    ]
    assert np.diff(heights) == pytest.approx([3 * 0.12] * 2)


def test_an_absent_modality_has_no_notes():
    scale = Scale("viridis", 0.0, 1.0, "share")
    sheet = make_table().draw([Group("", [make_maps(scale, notes=["first", "second", "third"])])])
    assert {"first", "third"} < set(texts(sheet)) and "second" not in texts(sheet)


def bars(sheet):
    """The labels and the numbers of the colour bars of a sheet."""
    axes = [axes for axes in sheet.figure.axes if axes.get_xlabel()]
    return {a.get_xlabel(): [tick.get_text() for tick in a.get_xticklabels()] for a in axes}


def test_the_ends_of_a_range_are_told_apart_and_stay_short():
    assert short_numbers(0, 1) == ("0.00", "1.00") and short_numbers(-320, 4000) == ("-320", "4000")
    assert short_numbers(-0.37013, -0.36504) == ("-0.37013", "-0.36504")
    assert short_numbers(0.5, 0.5) == ("0.50", "0.50") and short_numbers(0.5, 0.5 + 1e-9) == ("0.50000", "0.50000")


def test_columns_with_one_scale_share_a_colour_bar():
    score, weight = Scale("viridis", -0.3661, 12.0, "score"), Scale("magma", 0.0, 2.0, "weight")
    groups = [Group("a", [make_maps(score)]), Group("b", [make_maps(weight), make_maps(weight)])]
    sheet = make_table().draw(groups)
    assert len([axes for axes in sheet.figure.axes if axes.get_xlabel()]) == 2
    assert bars(sheet)["score"] == ["-0.4", "12.0"], "a short bar has numbers at its ends"
    assert len(bars(sheet)["weight"]) >= 3
