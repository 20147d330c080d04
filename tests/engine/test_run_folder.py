"""The folder of a run: what TensorBoard is given."""

from engine.run_folder import RunFolder


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
