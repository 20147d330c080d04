"""Damaged archives and numbers that are not finite are noticed."""

import zipfile

import pytest
import torch

from utils.integrity import find_non_finite, verify_archive


def test_a_damaged_archive_is_noticed_and_other_files_pass(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.ones(100)}, path)
    verify_archive(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(2).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="checksum differs"):
        verify_archive(path)
    path.write_bytes(b"no archive")
    verify_archive(path)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_the_first_non_finite_tensor_is_named(broken):
    content = {"a": [torch.ones(1), {"b": torch.tensor([1.0, broken])}], "text": "nan", "whole": torch.ones(1).int()}
    assert find_non_finite(content) == "a.1.b"
    assert find_non_finite({"a": content["a"][:1]}) is None
