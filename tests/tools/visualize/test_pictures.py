"""What the pictures say, apart from how they are drawn."""

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from data.sample import Sample
from data.splits import EvalSplit
from engine.reranking import rerank
from modeling.selection import Selection
from tests.helpers.backbone import make_backbone
from tools.visualize.attention import patch_attention, recorded_attention, rollout
from tools.visualize.curves import gather, short_names
from tools.visualize.failures import explain, pick
from tools.visualize.ranking import Match, Ranking, mistaken_for
from tools.visualize.ranks import spread_queries
from tools.visualize.scores import Choice
from tools.visualize.sheet import dim_dropped, kept_patches, to_pixels
from tools.visualize.style import new_figure
from tools.visualize.subject import find_samples, spread
from tools.visualize.tokens import (
    Mixtures,
    choose_tokens,
    effective_patches,
    mixture_group,
    notes,
    object_column,
    on_patches,
    read_mixtures,
)
from tools.visualize.tsne import embed, principal_components
from utils.errors import UserError


# ---------------------------------------------------------------------------------------------------------- tokens
def test_kept_patches_keep_their_pixels_and_the_others_fade():
    kept = kept_patches(torch.tensor([5, 0]), 6)
    assert kept.tolist() == [True, False, False, False, False, True]
    image = np.full((6, 4, 3), 55, np.uint8)
    shown = dim_dropped(image, kept, (3, 2))  # cells of 2 x 2 pixels
    assert (shown[:2, :2] == 55).all() and (shown[4:, 2:] == 55).all()
    assert (shown == 55).all(axis=2).sum() == 8
    assert (shown[:2, 2:] == [165, 173, 188]).all(), "0.78 (196, 206, 226) + 0.22 x 55"


def test_a_grid_that_does_not_divide_the_image_still_covers_it():
    pixels = to_pixels(np.arange(6), (3, 2), (7, 5))
    assert pixels.shape == (7, 5)
    assert pixels[:, 0].tolist() == [0, 0, 0, 2, 2, 4, 4] and pixels[0].tolist() == [0, 0, 0, 1, 1]


def test_effective_patches_and_the_most_peaked_tokens():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(effective_patches(weights), torch.tensor([4.0, 1.0, 2.0]))
    assert choose_tokens(weights, None) == [1, 2, 0]
    assert choose_tokens(weights, (2, 0)) == [2, 0]
    with pytest.raises(UserError, match=r"--tokens has 3, but 3 tokens come out .* 0 to 2"):
        choose_tokens(weights, (0, 3))


def test_weights_go_to_their_patches():
    values = on_patches(torch.tensor([0.7, 0.3]), torch.tensor([3, 1]), 4)
    np.testing.assert_allclose(values, [np.nan, 0.3, np.nan, 0.7])


def test_notes_say_how_many_are_kept_and_where():
    own = Choice("sdtps", torch.zeros(1, 4), torch.tensor([[0, 2]]))
    other = Choice("centre", torch.zeros(1, 4), torch.tensor([[2, 3]]))
    assert notes(own, own, None) == ["2 of 4"] and notes(other, own, None) == ["50 % in common"]
    coverage = torch.tensor([[1.0, 0.0, 0.5, 0.1]])
    assert notes(own, own, coverage) == ["2 of 4\n75 % on the object"]
    assert notes(other, own, coverage) == ["30 % on the object\n50 % in common"]
    column = object_column(coverage, other)
    assert set(column.notes) == {"all patches: 40 %\nbest 2: 75 %"}
    np.testing.assert_array_equal(column.cells, coverage.expand(3, -1))


def test_the_tokens_that_are_shown_are_multiples_of_an_even_mixture():
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    own, image = Choice("sdtps", torch.zeros(1, 4), torch.tensor([[3, 1]])), np.zeros((4, 4, 3), np.uint8)
    first, second = mixture_group([Mixtures(weights, [1, 0])], own, [image]).columns
    assert first.notes == ["token 1 draws\non 2.0 of 2"] and second.notes == ["token 0 draws\non 1.0 of 2"]
    np.testing.assert_array_equal(first.cells, [[np.nan, 1, np.nan, 1]])
    np.testing.assert_array_equal(second.cells, [[np.nan, 0, np.nan, 2]])
    assert first.scale is second.scale and first.scale.high == 2


def test_kept_patches_that_are_not_aggregated_have_no_tokens():
    selection = Selection(indices=(torch.tensor([[0, 2]]),), score=(torch.zeros(1, 4),), weights=None, parts={})
    (mixtures,) = read_mixtures(selection, None)
    assert mixtures.tokens == []
    with pytest.raises(UserError, match="does not aggregate"):
        read_mixtures(selection, (0,))


# --------------------------------------------------------------------------------------------------------- ranking
def make_split(pids, groups, query, gallery):
    samples = [Sample((Path("a.jpg"),) * 3, pid=int(p), camera=int(g)) for p, g in zip(pids, groups, strict=True)]
    return EvalSplit("test", tuple(samples), np.array(query), np.array(gallery), "camera")


def make_random_ranking(*, reranked=False):
    """A random ranking of 15 queries and 35 gallery images, with the features (40, 5)."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator)
    pids, groups = (torch.randint(0, 4, (40,), generator=generator) for _ in range(2))
    split = make_split(pids, groups, range(15), range(5, 40))
    return Ranking.from_split(features, split, reranked=reranked), features


@pytest.fixture
def ranking():
    """One query of identity 1 seen by camera 0, on a line with six gallery images."""
    positions = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unsqueeze(1)
    pids = [1, 2, 1, 2, 3, 1, 1]
    split = make_split(pids, [0, 0, 0, 1, 1, 1, 1], [0], range(1, 7))
    return Ranking.from_split(positions, split), pids


def test_a_ranking_leaves_out_what_the_metric_ignores(ranking):
    ranks, pids = ranking
    matches = ranks.matches(0)  # sample 2 is of the query's own identity and camera
    assert [(m.rank, m.index, m.distance, m.correct) for m in matches] == [
        (1, 1, 1.0, False), (2, 3, 3.0, False), (3, 4, 4.0, False), (4, 5, 5.0, True), (5, 6, 6.0, True),
    ]  # fmt: skip
    assert ranks.ap.tolist() == [pytest.approx((1 / 4 + 2 / 5) / 2)]
    assert mistaken_for(matches, pids) == {2: 2, 3: 1}
    assert explain(matches, pids, 0.325) == "AP 32.5 %; first correct at rank 4 of 5; before it id 2 (2), id 3 (1)"
    assert [match.rank for match in pick(matches)] == [1, 2, 3, 4], "the wrong ones, then the first correct one"


def test_average_precision_of_a_random_ranking_follows_from_its_marks():
    ranks, _ = make_random_ranking()
    for query in range(15):
        correct = np.array([match.correct for match in ranks.matches(query)])
        precision = correct.cumsum() / np.arange(1, len(correct) + 1)
        assert float(ranks.ap[query]) == pytest.approx(precision[correct].mean())
    by_ap = ranks.ap[ranks.by_ap()]
    assert len(by_ap) == 15 and (by_ap.diff() >= 0).all()


def test_re_ranked_lists_are_those_of_the_metric():
    ranks, features = make_random_ranking(reranked=True)
    distance = rerank(features[:15], features[5:])
    for query, matches in enumerate(map(ranks.matches, range(15))):
        found = [match.distance for match in matches]
        assert found == sorted(found) and found == [float(distance[query, match.index - 5]) for match in matches]
        correct = np.array([match.correct for match in matches])
        precision = correct.cumsum() / np.arange(1, len(correct) + 1)
        assert float(ranks.ap[query]) == pytest.approx(precision[correct].mean())


def test_a_query_without_a_match_is_no_failure():
    ranks = Ranking.from_split(torch.eye(3), make_split([1, 2, 1], [0, 0, 1], [0, 1], range(3)))
    assert ranks.by_ap() == [0]


def test_queries_are_spread_from_bad_to_good():
    assert spread_queries([7, 3, 9, 1, 4, 0, 2, 8], 4) == [3, 1, 0, 8]
    assert spread(3, 2) == [0, 1] and spread(1, 9) == [4]


def test_failures_named_are_few():
    matches = [Match(i, i + 1, 0.0, i == 6) for i in range(7)]
    assert explain(matches, np.arange(7), 0.1).endswith("id 0 (1), id 1 (1), id 2 (1), id 3 (1) and 2 other identities")


# ------------------------------------------------------------------------------------------------------- selection
def test_images_are_found_by_number_and_name():
    samples = [Sample((Path(f"RGB/{name}.jpg"), None, None), pid=0, camera=0) for name in ("7", "b", "c", "b")]
    assert find_samples(samples, "2, b.jpg,b") == [2, 1, 1]
    assert find_samples(samples, "7") == [0], "a name counts before a number"
    assert find_samples(samples, "1", among=[2, 3]) == [3]
    assert find_samples(samples, "b", among=[2, 3]) == [3]
    with pytest.raises(UserError, match=r"no query '4'\. Allowed: numbers 0 to 1 and file names such as c\.jpg"):
        find_samples(samples, "4", among=[2, 3], what="query")


# ------------------------------------------------------------------------------------------------------- attention
def test_rollout_by_hand():
    first = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    second = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    # (A + I) / 2: first [[.75, .25], [0, 1]], second [[.5, .5], [.5, .5]]; second @ first:
    torch.testing.assert_close(rollout([first, second]), torch.tensor([[[0.375, 0.625], [0.375, 0.625]]]))
    assert torch.equal(rollout([second]), torch.full((1, 2, 2), 0.5))


def test_attention_to_patches_is_a_multiple_of_an_even_share():
    attention = torch.tensor(
        [[[0.2, 0.2, 0.45, 0.15], [0.0, 1.0, 0.0, 0.0], [0.1, 0.1, 0.4, 0.4], [0.3, 0.1, 0.6, 0.0]]]
    )
    class_share = patch_attention(attention, num_prefix=2, has_class_token=True)  # a class token and a register
    torch.testing.assert_close(class_share, torch.tensor([[1.5, 0.5]]))
    mean_share = patch_attention(attention, num_prefix=2, has_class_token=False)  # rows 2 and 3: (.5, .2)
    torch.testing.assert_close(mean_share, torch.tensor([[10 / 7, 4 / 7]]))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_recorded_attention_is_what_the_fused_kernel_applies(name):
    torch.manual_seed(0)
    vit = timm.create_model(name, depth=2, num_classes=0, img_size=(56, 28) if "14" in name else (64, 32)).eval()
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    applied, kernel = [], F.scaled_dot_product_attention

    def spy(query, key, value, **options):
        one_hot = torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1)  # as values they give the matrix itself
        applied.append(kernel(query, key, one_hot).mean(dim=1))
        return kernel(query, key, value, **options)

    with torch.inference_mode():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", spy)
            expected = vit.forward_features(images)
        with recorded_attention(vit) as maps:
            torch.testing.assert_close(vit.forward_features(images), expected, rtol=1e-4, atol=1e-4)
        vit.forward_features(images)  # records nothing any more
    assert len(maps) == len(applied) == 2
    for recorded, true in zip(maps, applied, strict=True):
        torch.testing.assert_close(recorded, true, rtol=1e-4, atol=1e-5)
    assert all(block.attn.fused_attn for block in vit.blocks)


def test_blocks_that_show_no_attention_are_refused():
    backbone = make_backbone("ViT-Test", img_size=(64, 32))
    backbone.vit.blocks[1].attn = torch.nn.Identity()
    with pytest.raises(UserError, match="do not show their attention"), recorded_attention(backbone.vit):
        pass


# ------------------------------------------------------------------------------------------------------------ tsne
def test_principal_components_find_the_plane():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(50, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0])
    plane -= plane.mean(dim=0)
    _, _, axes = torch.linalg.svd(plane)
    turned = plane @ axes.T  # along its own directions
    rotation, _ = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64))
    points = principal_components(turned @ rotation[:2] + 5)
    torch.testing.assert_close(points.abs(), turned.abs())


def test_t_sne_repeats_and_keeps_groups_apart():
    groups = torch.arange(2).repeat_interleave(5)
    features = F.one_hot(groups, 3).float() + 0.01 * torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    points = embed(features, "tsne")
    np.testing.assert_array_equal(points, embed(features, "tsne"))
    distance = torch.cdist(*(torch.from_numpy(points),) * 2)
    nearest = distance.fill_diagonal_(torch.inf).argmin(dim=1)
    assert (groups[nearest] == groups).all()


def test_extras_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match=r"t-SNE needs scikit-learn.*pip install scikit-learn.*--method pca"):
        embed(torch.randn(9, 4), "tsne")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="needs matplotlib, which is not installed: pip install matplotlib"):
        new_figure(1, 1)


# ---------------------------------------------------------------------------------------------------------- curves
def test_numbers_of_the_records_are_sorted_into_panels():
    records = [
        {
            "epoch": 0, "eval": {"ori": {"mAP": 3.0, "R1": 1.0, "R5": 2.0}},
            "selection": {"kept_on_object": 20.0, "relative_on_object": -0.1},
        },
        {
            "epoch": 1, "losses": {"total": 5.0, "id/ori": 4.0, "triplet/ori": float("nan")}, "lr": {"rest": 0.1},
            "sdtps": {"common": 40.0, "score_entropy": 0.9}, "samples_per_s": 9.0,
        },
    ]  # fmt: skip
    assert gather(records) == {
        "total loss": {"total": [(1, 5.0)]},
        "id loss": {"ori": [(1, 4.0)]},
        "mAP (%)": {"ori": [(0, 3.0)]},
        "Rank-1 (%)": {"ori": [(0, 1.0)]},
        "learning rate": {"rest": [(1, 0.1)]},
        "selection (%)": {"kept on object": [(0, 20.0)]},
        "selection: relative on object": {"": [(0, -0.1)]},
        "sdtps: common": {"": [(1, 40.0)]},
        "sdtps: score entropy": {"": [(1, 0.9)]},
    }
    assert list(gather(records))[:2] == ["total loss", "id loss"]


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    assert short_names([Path("/a/x/run"), Path("/a/y/run"), Path("/a/z")]) == ["x/run", "y/run", "a/z"]
    assert short_names([Path("/a/x/run")]) == ["run"]
    with pytest.raises(UserError, match="twice"):
        short_names([tmp_path, tmp_path])
