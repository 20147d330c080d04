"""tools.benchmark: both sides compute the same numbers, and the tool measures and writes. No test asserts a time."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch.utils.data import DataLoader

from engine.metrics import evaluate_ranking
from engine.reranking import rerank
from tools.benchmark.__main__ import DEFAULT, main
from tools.benchmark.build import build_bench
from tools.benchmark.epoch import ReferenceEpoch, run_ours
from tools.benchmark.ranks import make_features
from tools.benchmark.reference import loading, ranking
from tools.benchmark.steps import measure_compile, reference_images, step_shares
from tools.benchmark.timing import Timing, compare, timing_row
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """--root with the tiny synthetic set."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def bench(synthetic, tmp_path):
    return build_bench("RGBNT201/DeMo_SDTPS.yml", root=synthetic, folder=tmp_path, device="cpu", quick=True)


# --------------------------------------------------------------------------------------- the same numbers as ours


def test_the_reference_metric_equals_ours():
    data = make_features(40, 90, width=8)
    ours = evaluate_ranking(*data)
    query, pid, view, gallery, gallery_pid, gallery_group = (tensor.numpy() for tensor in data)
    distance = ranking.squared_distances(query, gallery)
    mean_ap, cmc = ranking.evaluate(distance, pid, view, gallery_pid, gallery_group)
    assert 0.1 < mean_ap < 0.9
    assert ours.mAP == pytest.approx(mean_ap, abs=1e-9)
    assert ours.cmc[1:].tolist() == pytest.approx(cmc.tolist(), abs=1e-9)


@pytest.mark.parametrize(("k1", "k2"), [(12, 4), (9, 1)])
def test_the_reference_reranking_equals_ours(k1, k2):
    query, _, _, gallery, _, _ = make_features(40, 90, width=8)
    theirs = ranking.rerank(query.numpy(), gallery.numpy(), k1=k1, k2=k2)
    assert np.abs(rerank(query, gallery, k1=k1, k2=k2).numpy() - theirs).max() < 1e-5


def test_the_reference_training_equals_ours(bench):
    """The losses of several steps on one batch are equal, so the gradients and rates are, too."""
    trainer = bench.make_trainer("off")
    trainer.state.model.train()
    trainer.augment = replace(trainer.augment, flip_prob=0, pad_pixels=0, erase_prob=0)
    reference = bench.make_reference_trainer(trainer)
    batch = next(iter(trainer.loader))
    images = reference_images(trainer, batch)
    ours = [trainer.train_step(batch)["total"].item() for _ in range(4)]
    theirs = [reference.step(images, batch.pid, batch.camera)[0] for _ in range(4)]
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] != pytest.approx(ours[0], rel=1e-2)  # the steps did something
    groups = reference.optimizer.param_groups
    assert all(len(group["params"]) == 1 for group in groups) and len(groups) > len(
        trainer.state.optimizer.param_groups
    )


def test_the_reference_epoch_scores_like_our_evaluator(bench):
    """Our evaluator gives every descriptor of the reference's weights the same mAP."""
    trainer = bench.make_trainer("off")
    reference = ReferenceEpoch(bench, trainer)
    assert set(reference()) == {"train", "evaluate", "save", "whole"}
    trainer.state.model.load_state_dict(torch.load(bench.folder / "reference.pth", weights_only=True))
    ours = trainer.evaluate(trainer.state.model)["eval"]
    assert reference.scores.keys() == ours.keys()
    for name, score in reference.scores.items():
        assert 100 * score == pytest.approx(ours[name]["mAP"], abs=1e-6)


def test_the_reference_images_equal_ours(bench):
    """With all random transforms off, the reference's images are ours."""
    trainer = bench.make_trainer("off")
    plain = replace(trainer.augment, flip_prob=0, pad_pixels=0, erase_prob=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    for transform in (loading.train_transform, loading.eval_transform):
        dataset = loading.JpegDataset(bench.data.train, bench.data.labels, transform(bench.size_hw, plain))
        order = trainer.loader.batch_sampler.batches.tolist()
        loader = DataLoader(dataset, batch_sampler=order)
        for (images, pid, camera), batch in zip(loader, trainer.loader, strict=True):
            expected = plain(batch.images, batch.present, torch.Generator())
            torch.testing.assert_close(torch.stack(images, dim=1), expected, atol=1e-6, rtol=0)
            assert torch.equal(pid, batch.pid) and torch.equal(camera, batch.camera)


def test_the_reference_transform_is_random(bench):
    trainer = bench.make_trainer("off")
    dataset = bench.make_reference_loader(trainer).dataset
    assert not torch.equal(dataset[0][0][0], dataset[0][0][0])


# ------------------------------------------------------------------------------------------------------ the tool


def test_our_epoch_is_timed_in_parts(bench):
    trainer = bench.make_trainer("off")
    evaluate = trainer.evaluate
    seconds = run_ours(trainer)
    assert set(seconds) == {"train", "evaluate", "save", "whole"} and min(seconds.values()) > 0
    assert trainer.state.epoch == 1 and trainer.evaluate is evaluate
    assert (bench.folder / "ours" / "last.pth").exists()


def test_step_shares_are_those_of_the_labels_in_a_step(bench):
    trainer = bench.make_trainer("off")
    shares = step_shares(trainer, next(iter(trainer.loader)), repeats=2)
    parts = {"copy and augmentation", "backbone", "branches and heads", "losses", "backward", "optimiser"}
    assert shares.keys() == parts
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0


def test_median_spread_and_ratio():
    """Sorted 1 2 3 4 5: quartiles 2 and 4, so the spread is 2 / 3."""
    timing = Timing((5.0, 1.0, 3.0, 2.0, 4.0))
    assert (timing.median, timing.spread) == (3.0, pytest.approx(2 / 3))
    assert Timing((7.0,)).spread == 0.0
    row = timing_row("n", Timing((0.5,)), timing)
    assert (row.ours, row.reference, row.ratio, row.spread) == (500, 3000, 6, pytest.approx(2 / 3))
    row = timing_row("n", Timing((0.5,)), timing, samples=6)
    assert (row.ours, row.reference, row.ratio, row.unit) == (12, 2, 6, "samples/s")


def test_ways_take_turns():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = compare(ways, CPU, repeats=3, warmup=1, calls=2)
    assert "".join(calls) == "aabb" + "bbaa" + "aabb" + "bbaa"
    assert [len(timing.seconds) for timing in times.values()] == [3, 3]


@pytest.mark.slow
def test_the_whole_at_once(synthetic, tmp_path, capsys):
    output = tmp_path / "deep" / "cpu.json"
    arguments = ["--quick", "--root", str(synthetic), "--output", str(output)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    report = json.loads(output.read_text())
    assert report.keys() == {"command", "device", "cores", "threads", "commit", "versions", "rows"}
    assert report["command"] == " ".join(["python -m tools.benchmark", *arguments])
    assert {row["subject"] for row in report["rows"]} == set(DEFAULT)
    names = [row["name"] for row in report["rows"]]
    wholes = {name.split(", ", 3)[3] for name in names if name.startswith("whole, ")}
    assert wholes == {"16 samples", "16 samples, selection after block 1"}
    for row in report["rows"]:
        assert row["name"] in shown and isinstance(row["ours"], float)
        if row["unit"] in ("ms", "samples/s", "TFLOP/s"):
            assert row["ours"] > 0
        if row["ratio"] is not None and row["unit"] == "ms":
            assert row["ratio"] == pytest.approx(row["reference"] / row["ours"], rel=1e-2)


def test_an_unknown_subject_is_refused():
    with pytest.raises(UserError, match=r"--only names sleep\. Allowed: train, stages"):
        main(["--only", "train,sleep"])


def test_where_compile_fails_it_says_so(bench, capsys, monkeypatch):
    def broken(*_args, **_kwargs):
        raise TorchDynamoException("no compiler found")

    monkeypatch.setattr(torch, "compile", lambda _model: broken)
    assert list(measure_compile(bench)) == []
    assert "torch.compile does not work here, and is left out." in capsys.readouterr().out
