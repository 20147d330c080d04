"""The synthetic set is generated on first use and then listed with its masks."""

from data.datasets.synthetic import SYNTHETIC

SETTINGS = {
    "train_ids": 2,
    "test_ids": 2,
    "train_images": 5,
    "test_images": 4,
    "size": [32, 16],
    "difficulty": 0.5,
    "off_centre": 0.0,
    "seed": 3,
}


def test_it_is_generated_once_and_listed(tmp_path):
    root = SYNTHETIC.prepare(tmp_path, settings=SETTINGS, workers=0)
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    splits = SYNTHETIC.parse(root)
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 5, "query": 4, "gallery": 4}
    assert splits["query"] == splits["gallery"]
    assert {sample.pid for sample in splits["train"]} == {1, 2} and {s.pid for s in splits["query"]} == {3, 4}
    assert all(sample.mask.is_file() for samples in splits.values() for sample in samples)
    assert SYNTHETIC.prepare(tmp_path, settings=SETTINGS, workers=0) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written


def test_other_settings_give_another_folder(tmp_path):
    folders = {
        SYNTHETIC.prepare(tmp_path, settings=SETTINGS | change, workers=0)
        for change in ({}, {"seed": 4}, {"size": [16, 16]}, {"off_centre": 0.5})
    }
    assert len(folders) == 4


def test_problems_carry_its_name(tmp_path):
    root = SYNTHETIC.prepare(tmp_path, settings=SETTINGS, workers=0)
    next((root / "test" / "NI").iterdir()).unlink()
    found = SYNTHETIC.scan(root)
    assert found.name == "synthetic" and list(found.problems) == ["file(s) without a partner of the same name"]
