"""The evaluator's switches against the functions they stand for."""

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
    share = object_share(kept, coverage)
    assert share == {"kept_on_object": pytest.approx(62.5), "all_on_object": pytest.approx(100 * 2.5 / 6)}
