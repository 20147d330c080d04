"""Each metric of a patch selection equals a case worked by hand, and a run records them."""

import math
from pathlib import Path

import pytest
import torch

import train_net
from configs import get_cfg
from modeling import build_model
from modeling.model import ReIDOutput
from modeling.selection import Selection
from modeling.selection.diagnostics import (
    SelectionDiagnostics,
    common_share,
    correlation,
    entropy,
    gradient_norm,
    kept_mask,
    moved_share,
    selection_metrics,
)
from tests.helpers.runs import records, run

TINY = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
SDTPS_ON = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.75]
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def test_common_share_by_hand():
    """Each keeps two of four patches, {0, 1}, {1, 2} and {1, 3}: one of two is common, without the third as well."""
    kept = kept_mask(torch.tensor([[[0, 1], [2, 1], [1, 3]], [[0, 1], [0, 1], [2, 3]]]), 4)
    assert kept[0].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    everyone, without_third = torch.tensor([[True] * 3] * 2), torch.tensor([[True, True, False]] * 2)
    assert common_share(kept, everyone).tolist() == [0.5, 0.0]
    assert common_share(kept, without_third).tolist() == [0.5, 1.0]


def test_entropy_by_hand():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(weights), torch.tensor([1.0, math.log(2) / math.log(4), 0.0]))
    assert entropy(torch.ones(2, 1)).tolist() == [1.0, 1.0]


def test_correlation_by_hand():
    """The deviations (-1, 0, 1) and (-1, 1, 0) give 1 / 2. A constant row has no correlation, whatever its rounding."""
    first = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    second = torch.tensor([[0.0, 2.0, 1.0], [5.0, 3.0, 1.0], [0.7, 0.7, 0.7000001]])
    found = correlation(first, second)
    torch.testing.assert_close(found[:2], torch.tensor([0.5, -1.0]))
    assert found[2].isnan()


def test_moved_share_by_hand():
    """{0, 1} and {1, 2} have one of three patches in common."""
    before, now = kept_mask(torch.tensor([[0, 1], [0, 1]]), 4), kept_mask(torch.tensor([[2, 1], [1, 0]]), 4)
    torch.testing.assert_close(moved_share(now, before), torch.tensor([2 / 3, 0.0]))


def test_gradient_norm_is_that_of_the_unscaled_gradient():
    weights = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
        torch.nn.Parameter(torch.ones(1)),
    ]
    weights[0].grad, weights[1].grad = torch.tensor([8.0, 16.0]), torch.tensor([16.0])
    assert gradient_norm(weights, torch.tensor(8.0)).item() == 3.0  # (1, 2, 2)
    assert gradient_norm(weights[2:], torch.tensor(8.0)) is None


def selection(predicted=True):
    """Make a selection of one image (M 3, N 4, S 2, T 1), in which the third modality differs from the others."""
    even, third = [[0.0, 0.0, 0.0, 0.0]], [[math.log(2), 0.0, 0.0, 0.0]]
    rising, zigzag = torch.tensor([[0.0, 0.1, 0.2, 0.3]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    parts = {"predicted": (rising, rising, rising), "attention": (2 * rising, -rising, zigzag)}
    return Selection(
        indices=tuple(torch.tensor([kept]) for kept in ([0, 1], [1, 0], [2, 3])),
        score=tuple(map(torch.tensor, (even, even, third))),
        weights=tuple(torch.tensor([[row]]) for row in ([0.5, 0.5], [1.0, 0.0], [1.0, 0.0])),
        parts=parts if predicted else {"attention": parts["attention"]},
    )


def test_metrics_of_a_batch_leave_absent_modalities_out():
    present = torch.tensor([[True, True, False]])
    found = {name: values.nanmean().item() for name, values in selection_metrics(selection(), present).items()}
    assert found == pytest.approx({"common": 1, "score_entropy": 1, "weight_entropy": 0.5, "predictor_attention": 0})
    found = selection_metrics(selection(), torch.ones(1, 3, dtype=torch.bool))
    # softmax(log 2, 0, 0, 0) = (2, 1, 1, 1) / 5; deviations (-3, -1, 1, 3) and (-1, 1, -1, 1): 4 / sqrt(20 * 4)
    expected = -(0.4 * math.log(0.4) + 0.6 * math.log(0.2)) / math.log(4)
    assert found["score_entropy"][0, 2].item() == pytest.approx(expected)
    assert found["predictor_attention"][0].tolist() == pytest.approx([1, -1, 4 / math.sqrt(80)])
    assert found["common"].tolist() == [0]
    alone = selection_metrics(selection(predicted=False), torch.tensor([[True, False, False]]))
    assert alone["common"].isnan().all() and "predictor_attention" not in alone


def observed(kept):
    """Wrap a selection in the output of a model."""
    return ReIDOutput(torch.zeros(1, 1), {}, {}, {}, {}, kept)


def make(*opts):
    torch.manual_seed(0)
    return build_model(get_cfg(None, [*TINY, *SDTPS_ON, *opts]), num_classes=5, num_cameras=1)


def watch(model, period=1):
    return SelectionDiagnostics(model.selections[0], period=period)


def test_means_are_over_the_steps_of_the_period_and_start_again():
    diagnostics, everyone = watch(make(), period=2), torch.ones(1, 3, dtype=torch.bool)
    without_third = torch.tensor([[True, True, False]])
    for step, present in enumerate([without_third, everyone, without_third, everyone, everyone]):
        diagnostics.after_backward(step, observed(selection()), present, NO_SCALER)
    assert diagnostics.read()["sdtps"]["common"] == pytest.approx(2 / 3)  # steps 0, 2 and 4: 1, 1, 0
    assert diagnostics.read() == {}


@pytest.mark.parametrize("opts", [[], ["MODEL.SDTPS_BLOCK", 1], ["MODEL.SDTPS_USE_PREDICTOR", False]])
def test_gradient_norm_is_of_the_predictors_at_the_first_stage(opts):
    model = make(*opts)
    diagnostics = watch(model)
    output = model(torch.randn(4, 3, 3, 64, 32), torch.zeros(4, dtype=torch.int64))
    sum(logits.square().sum() for logits in output.logits.values()).mul(16).backward()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    present = torch.ones(4, 3, dtype=torch.bool)
    diagnostics.after_backward(0, output, present, scaler)
    found = diagnostics.read()["sdtps"]
    gradients = [p.grad.flatten() for name, p in model.selections[0].named_parameters() if "predictor" in name]
    if not gradients:
        assert set(found) == {"common", "score_entropy", "weight_entropy"}
        return
    assert len(gradients) == 12
    assert found["predictor_grad_norm"] == pytest.approx(torch.cat(gradients).norm().item() / 16, rel=1e-5)
    assert found["predictor_grad_norm"] > 0
    predicted, attention = (output.selection.parts[name] for name in ("predicted", "attention"))
    expected = [
        torch.corrcoef(torch.stack([predicted[m][b], attention[m][b]]))[0, 1].item() for m in range(3) for b in range(4)
    ]
    assert found["predictor_attention"] == pytest.approx(sum(expected) / 12, abs=1e-5)


def test_a_gradient_that_overflowed_is_not_counted():
    model = make()
    diagnostics, present = watch(model), torch.ones(1, 3, dtype=torch.bool)
    for step, value in enumerate([1.0, math.inf, 3.0]):
        for parameter in diagnostics.parameters:
            parameter.grad = torch.full_like(parameter, value)
        diagnostics.after_backward(step, observed(selection()), present, NO_SCALER)
    size = math.sqrt(sum(p.numel() for p in diagnostics.parameters))
    assert diagnostics.read()["sdtps"]["predictor_grad_norm"] == pytest.approx(2 * size, rel=1e-5)


def test_moved_counts_present_modalities_since_the_evaluation_before():
    diagnostics = watch(make())
    present = torch.tensor([[True, True, False]])
    assert diagnostics.after_evaluation(torch.tensor([[[0, 1], [0, 1], [0, 1]]]), present) == {}
    found = diagnostics.after_evaluation(torch.tensor([[[1, 2], [1, 0], [6, 7]]]), present)
    assert found == {"moved": pytest.approx(100 * (2 / 3 + 0) / 2)}
    assert diagnostics.after_evaluation(torch.tensor([[[1, 2], [1, 0], [6, 7]]]), present) == {"moved": 0}


def train(config, *opts):
    """Train, and return the records of the run."""
    assert run(train_net, "--config_file", config, *opts) == 0
    return records(Path(get_cfg(config, opts).OUTPUT_DIR))


def test_a_run_records_them_and_they_change_no_step(tiny, tmp_path, monkeypatch):
    lines = train(tiny)
    names = {"common", "score_entropy", "weight_entropy", "predictor_attention", "predictor_grad_norm"}
    assert "sdtps" not in lines[0] and all(set(line["sdtps"]) == names for line in lines[1:])
    assert all(
        0 < line["sdtps"]["score_entropy"] <= 1 and line["sdtps"]["predictor_grad_norm"] > 0 for line in lines[1:]
    )
    assert "selection" not in lines[0] and all(0 <= line["selection"]["moved"] <= 100 for line in lines[1:])
    assert any(line["selection"]["moved"] > 0 for line in lines[1:])

    monkeypatch.setattr(SelectionDiagnostics, "after_backward", lambda *_: None)
    without = train(tiny, "OUTPUT_DIR", tmp_path / "without")
    assert "sdtps" not in without[1] and [line["losses"] for line in without[1:]] == [
        line["losses"] for line in lines[1:]
    ]


def test_on_the_synthetic_set_they_stand_beside_the_share_on_the_person(tiny, tmp_path):
    sizes = {"TRAIN_IDS": 4, "TEST_IDS": 2, "TRAIN_IMAGES": 16, "TEST_IMAGES": 8, "SIZE": [64, 32]}
    opts = [word for key, value in sizes.items() for word in (f"SYNTHETIC.{key}", value)]
    opts += ["DATASETS.NAMES", "synthetic", "DATASETS.ROOT_DIR", tmp_path / "drawn", "SOLVER.MAX_EPOCHS", 2]
    lines = train(tiny, *opts)
    shares = {"kept_on_object", "all_on_object", "oracle_on_object", "relative_on_object"}
    assert set(lines[0]["selection"]) == shares
    assert set(lines[2]["selection"]) == shares | {"moved"}


def test_without_sdtps_there_is_no_record(tiny, tmp_path):
    path = tmp_path / "baseline.yml"
    path.write_text(tiny.read_text().replace("USE_SDTPS: True, SDTPS_AGGR_RATIO: 0.75, SDTPS_USE_GUMBEL: True, ", ""))
    assert not any("sdtps" in line or "selection" in line for line in train(path))
