"""The folder of a run: records, files of earlier runs, and TensorBoard."""

from engine.run_folder import METRICS, RunFolder, read_records


def test_the_numbers_of_a_record_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.append(
            {"epoch": epoch, "losses": {"total": 4.0 / epoch}, "eval": {"ori": {"mAP": 50.0}}, "split": "test"}
        )
    folder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["eval/ori/mAP", "losses/total"]
    assert [(event.step, event.value) for event in events.Scalars("losses/total")] == [(1, 4.0), (2, 2.0)]


def test_a_broken_line_is_skipped_wherever_it_stands(tmp_path, caplog):
    path = tmp_path / METRICS
    path.write_text('{"epoch": 0}\n{"epoch": 1, "lo\n[1]\n{"epoch": 2}\n{"ep')
    with caplog.at_level("INFO"):
        assert list(read_records(path)) == [{"epoch": 0}, {"epoch": 2}]
    assert sum("broken line, which is skipped" in message for message in caplog.messages) == 3
    assert list(read_records(tmp_path / "none")) == []


def test_records_after_an_epoch_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / METRICS).write_text('{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n')
    folder.keep_records(1)
    assert [record["epoch"] for record in folder.records()] == [0, 1]


def test_an_earlier_run_is_set_aside_under_a_new_name_each_time(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert folder.set_aside() is None
    for name in ("earlier-1", "earlier-2"):
        (tmp_path / METRICS).write_text("{}")
        assert folder.set_aside() == tmp_path / name
    assert (tmp_path / "earlier-2" / METRICS).exists() and (tmp_path / "notes.txt").exists()


def test_which_checkpoints_belong_to_the_folder(tmp_path):
    folder = RunFolder(tmp_path / "out")
    assert folder.holds("auto") and folder.holds(str(tmp_path / "out" / "last.pth"))
    assert not folder.holds(str(tmp_path / "last.pth"))
