"""The evaluator's switches against the functions they stand for."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from configs import get_cfg
from data.build import build_data
from engine.build import build_evaluator
from engine.evaluate import as_percent, object_share
from engine.metrics import evaluate_ranking, rank_distances
from engine.reranking import rerank
from modeling import build_model


@pytest.fixture
def setup(tiny):
    """(evaluator of some keys, features of the split, labels of query and gallery)."""
    data = build_data(get_cfg(tiny))
    torch.manual_seed(0)
    samples = len(data.test.samples)
    features = torch.randn(samples, 8) * torch.rand(samples, 1) * 5
    query, gallery = (torch.from_numpy(index) for index in (data.test.query, data.test.gallery))
    pids, groups = torch.from_numpy(data.test.pids), torch.from_numpy(data.test.groups)

    def make(*opts):
        cfg = get_cfg(tiny, opts)
        model = build_model(cfg, num_classes=6, num_cameras=2)
        return build_evaluator(cfg, data.test, model, torch.device("cpu"))

    labels = pids[query], groups[query], pids[gallery], groups[gallery]
    return make, features, (features[query], features[gallery]), labels


def test_features_are_scaled_to_unit_length_when_asked_for(setup):
    make, features, (query, gallery), labels = setup
    plain = evaluate_ranking(query, *labels[:2], gallery, *labels[2:])
    unit = evaluate_ranking(F.normalize(query), *labels[:2], F.normalize(gallery), *labels[2:])
    assert plain.mAP != unit.mAP
    assert make("TEST.FEAT_NORM", "no").rank(features).mAP == plain.mAP
    assert make().rank(features).mAP == unit.mAP


def test_re_ranking_ranks_by_its_distances(setup):
    make, features, (query, gallery), labels = setup
    query, gallery = F.normalize(query), F.normalize(gallery)
    expected = rank_distances(rerank(query, gallery, k1=50, k2=15, lambda_value=0.3), *labels)
    found = make("TEST.RE_RANKING", "yes").rank(features)
    assert as_percent(found) == as_percent(expected)
    assert found.mAP != make().rank(features).mAP


def test_share_of_the_kept_patches_on_the_object_by_hand():
    coverage = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    kept = torch.tensor([[[0, 1]], [[1, 2]]])  # two images, one modality, two patches: (1 + .5) and (0 + 1) of four
    best = {"oracle_on_object": pytest.approx(62.5), "relative_on_object": pytest.approx(1.0)}
    all_share = {"all_on_object": pytest.approx(100 * 2.5 / 6)}
    assert object_share(kept, coverage) == {"kept_on_object": pytest.approx(62.5)} | all_share | best
    worse = torch.tensor([[[2, 0]], [[1, 0]]])  # (0 + 1) and (0 + 0) of four, where the best have 2.5
    share = object_share(worse, coverage)
    assert share["kept_on_object"] == pytest.approx(25.0) and share["oracle_on_object"] == pytest.approx(62.5)
    assert share["relative_on_object"] == pytest.approx((1 / 4 - 2.5 / 6) / (2.5 / 4 - 2.5 / 6)), "worse than chance"


def test_absent_modalities_do_not_count_in_the_share_on_the_object():
    coverage = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    kept = torch.tensor([[[0], [2]], [[1], [2]]])  # of the second image only the second modality is there
    share = object_share(kept, coverage, torch.tensor([[True, True], [False, True]]))
    all_share = 100 * (0.5 + 0.5 + 1 / 3) / 3
    assert share == {
        "kept_on_object": pytest.approx(100 * 2 / 3),
        "all_on_object": pytest.approx(all_share),
        "oracle_on_object": pytest.approx(100.0),
        "relative_on_object": pytest.approx((100 * 2 / 3 - all_share) / (100 - all_share)),
    }


def test_the_share_relative_to_the_best_choice_at_its_extremes():
    generator = torch.Generator().manual_seed(0)
    coverage = torch.rand(400, 32, generator=generator)
    ranked = coverage.argsort(dim=1).unsqueeze(1).expand(-1, 3, -1)
    drawn = torch.rand(400, 3, 32, generator=generator).argsort(dim=2)

    def relative(kept, coverage=coverage):
        return object_share(kept, coverage).get("relative_on_object")

    assert relative(ranked[..., -8:]) == pytest.approx(1.0)
    assert relative(ranked[..., :8]) == pytest.approx(-1.0, abs=0.05), "the distribution is symmetric"
    assert relative(drawn[..., :8]) == pytest.approx(0.0, abs=0.03)
    assert relative(drawn) is None, "every patch is kept"
    assert relative(drawn[..., :8], torch.zeros(400, 32)) is None, "there is no object"
    assert relative(drawn[..., :8], torch.full((400, 32), 0.3)) is None, "the object is everywhere alike"


def test_the_evaluation_counts_the_modalities_of_its_setting(tiny):
    cfg, device = get_cfg(tiny), torch.device("cpu")
    data = build_data(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=6, num_cameras=2)
    evaluator = build_evaluator(cfg, data.test, model, device)
    coverage = torch.rand(len(data.test.samples), model.backbone.num_patches)
    settings = ["nothing", "rt"]
    encoded = evaluator.encode(model, settings)
    records = replace(evaluator, coverage=coverage).score(model, settings)
    for setting, modalities in zip(settings, (slice(None), slice(1, 2)), strict=True):
        kept = encoded[setting].kept[:, modalities]
        assert records[setting]["selection"] == pytest.approx(object_share(kept, coverage), abs=1e-4)
    assert records["nothing"]["selection"] != records["rt"]["selection"]
    alone = replace(evaluator, coverage=coverage, missing="rt")(model)
    assert alone["selection"] == records["rt"]["selection"]
