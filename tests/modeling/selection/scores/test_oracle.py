"""The oracle keeps the object and the anti-oracle the background, by masks that travel with the images."""

import torch

from modeling.selection import TokenInfo
from modeling.selection.scores.oracle import AntiOracleScore, OracleScore
from tests.helpers.backbone import make_backbone

COVERAGE = torch.tensor([[[0.2, 1.0, 0.0, 0.6, 0.2, 1.0]] * 3])


def ranked(score, index):
    info = TokenInfo(index=torch.tensor([index]), coverage=COVERAGE)
    return score(torch.zeros(1, 3, 7, 2), None, info).value.argsort(dim=-1, descending=True)[0].tolist()


def test_patches_are_ranked_by_their_share_of_the_object():
    for order in ranked(OracleScore(), 0):
        assert {*order[:2]} == {1, 5} and order[2] == 3 and {*order[3:5]} == {0, 4} and order[5] == 2
    for order in ranked(AntiOracleScore(), 0):
        assert order[0] == 2 and {*order[1:3]} == {0, 4} and order[3] == 3 and {*order[4:]} == {1, 5}


def test_equal_shares_are_ranked_at_random_but_always_alike():
    first = [tuple(ranked(OracleScore(), index)[0][:2]) for index in range(20)]
    assert {(1, 5), (5, 1)} == {*first}
    assert first == [tuple(ranked(OracleScore(), index)[0][:2]) for index in range(20)]


def test_masks_are_averaged_over_overlapping_patches():
    backbone = make_backbone("ViT-Test", img_size=(64, 32), stride=(12, 8))
    mask = torch.randint(256, (2, 3, 64, 32), dtype=torch.uint8)
    found = backbone.pool_patches(mask).unflatten(2, backbone.grid)
    assert backbone.grid == (5, 3) and found.shape == (2, 3, 5, 3)
    for row in range(5):
        for column in range(3):
            patch = mask[:, :, 12 * row : 12 * row + 16, 8 * column : 8 * column + 16].double()
            torch.testing.assert_close(found[:, :, row, column], (patch.mean(dim=(2, 3)) / 255).float())
