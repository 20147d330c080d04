"""A file is written whole or not at all."""

import pytest

from utils.files import atomic_write


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize(("mode", "content"), [("w", "né"), ("wb", b"\x00\xff")])
def test_the_new_content_replaces_the_old(tmp_path, mode, content, unique):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path, mode, unique=unique) as file:
        file.write(content)
        assert path.read_text() == "old", "the old file stands until the new one is whole"
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert listing(tmp_path) == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and listing(tmp_path) == ["file"]


def test_the_former_file_can_be_kept(tmp_path):
    for text in ("first", "second"):
        with atomic_write(tmp_path / "file", keep_as=tmp_path / "former") as file:
            file.write(text)
    assert (tmp_path / "file").read_text() == "second" and (tmp_path / "former").read_text() == "first"


def test_leftovers_of_a_killed_run_are_overwritten(tmp_path):
    (tmp_path / ".file.tmp").write_text("a long rest of a killed run")
    with atomic_write(tmp_path / "file") as file:
        file.write("new")
    assert (tmp_path / "file").read_text() == "new" and listing(tmp_path) == ["file"]
