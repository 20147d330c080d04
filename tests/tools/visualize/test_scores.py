"""What other scores make of the tokens of a model, against models that have these scores."""

import pytest
import torch

from engine.evaluate import object_share
from modeling.selection import SCORES
from tests.helpers.subjects import make_subject
from tools.visualize.scores import Choice, choose, own_name
from utils.errors import UserError

WITHOUT_WEIGHTS = ["opencode", "attention", "rollout", "ats", "editor", "signal", "random", "centre"]
SYNTHETIC = [
    "DATASETS.NAMES", "synthetic", "SYNTHETIC.TRAIN_IDS", 4, "SYNTHETIC.TEST_IDS", 2, "SYNTHETIC.TRAIN_IMAGES", 16,
    "SYNTHETIC.TEST_IMAGES", 8, "SYNTHETIC.SIZE", [64, 32],
]  # fmt: skip


PLACES = {
    "after the backbone": [],
    "after the backbone and PIFE": ["MODEL.GLOBAL_LOCAL", True],
    "after a block": ["MODEL.SDTPS_BLOCK", 1],
}


@pytest.fixture
def plain(tiny):
    """The tiny experiment without Gumbel, which not all scores can be trained with."""
    tiny.write_text(tiny.read_text().replace("SDTPS_USE_GUMBEL: True, ", ""))
    return tiny


@pytest.mark.parametrize("place", list(PLACES))
def test_a_score_is_what_a_model_with_this_score_computes(plain, place):
    opts = PLACES[place]
    subject = make_subject(plain, *opts)
    selection, (own, *others) = choose(subject, 3, WITHOUT_WEIGHTS)
    assert own.name == "sdtps" and [choice.name for choice in others] == WITHOUT_WEIGHTS
    alone = subject.output(3).selection
    for choice, expected in ((own, alone), (own, selection)):
        assert torch.equal(choice.score, torch.stack(expected.score)[:, 0])
        assert torch.equal(choice.indices, torch.stack(expected.indices)[:, 0])
    for choice in others:
        model = make_subject(plain, *opts, "MODEL.SDTPS_SCORE", choice.name, weights=subject.model.state_dict())
        expected = model.output(3).selection
        torch.testing.assert_close(choice.score, torch.stack(expected.score)[:, 0])
        assert torch.equal(choice.indices, torch.stack(expected.indices)[:, 0])


def test_of_several_stages_the_first_one_is_compared(plain):
    subject = make_subject(plain, "MODEL.TRANSFORMER_TYPE", "ViT-Micro-8", "MODEL.SDTPS_BLOCK", [1, 2])
    _, (own, other) = choose(subject, 0, ["rollout"])
    assert own.score.shape == other.score.shape == (3, subject.model.backbone.num_patches)
    assert own.indices.shape == other.indices.shape


def test_the_oracle_is_possible_where_there_are_masks(plain, tmp_path):
    opts = [*SYNTHETIC, "DATASETS.ROOT_DIR", tmp_path / "drawn"]
    subject = make_subject(plain, *opts)
    _, (_, oracle, worst) = choose(subject, 2, ["oracle", "anti_oracle"])
    share = object_share(oracle.indices[None], subject.evaluator.coverage[2:3])
    assert share["kept_on_object"] == pytest.approx(share["oracle_on_object"], abs=0.5), "masks are resized otherwise"
    assert share["all_on_object"] < share["oracle_on_object"]
    assert worst.common(oracle).max() < 50
    model = make_subject(plain, *opts, "MODEL.SDTPS_SCORE", "oracle", weights=subject.model.state_dict())
    assert torch.equal(torch.stack(model.output(2).selection.score)[:, 0], oracle.score)
    _, (own, same) = choose(model, 2, ["oracle"])
    assert own.name == "oracle" and same.common(own).tolist() == [100.0] * 3, "with the masks that it has loaded"


def test_scores_that_cannot_be_computed_are_refused(plain):
    subject = make_subject(plain, "MODEL.SDTPS_SCORE", "centre")
    allowed = "Allowed here: opencode, attention, rollout, ats, editor, signal, random, centre, separated by commas"
    weights = "but the checkpoint holds no weights for it, because its model scores by 'centre'"
    for name, reason in {
        "sdtps": weights,
        "aligned": weights,
        "fixed": weights,
        "oracle": "which needs the mask of the object, and 000500_cam1_0_00.jpg has none",
        "nonsense": "which is no score",
    }.items():
        with pytest.raises(UserError, match=rf"--compare has '{name}', {reason}.*\. {allowed}\."):
            choose(subject, 0, ["centre", name])


def test_scores_that_read_the_blocks_are_refused_where_these_do_not_show_it(plain):
    subject = make_subject(plain)
    subject.model.backbone.vit.blocks[0].attn = torch.nn.Identity()
    with pytest.raises(UserError, match=r"'ats', which reads the attention .* Allowed here: sdtps, opencode, signal, "):
        choose(subject, 0, ["ats"])


def test_the_own_score_is_found_by_its_class(plain):
    assert len(set(SCORES.values())) == len(SCORES)
    assert own_name(make_subject(plain, "MODEL.SDTPS_SCORE", "opencode").model.selections[0]) == "opencode"


def test_the_share_in_common_by_hand():
    first = Choice("a", torch.zeros(2, 6), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]]))
    second = Choice("b", torch.zeros(2, 6), torch.tensor([[5, 4, 3, 2], [3, 2, 1, 0]]))
    assert first.common(second).tolist() == second.common(first).tolist() == [50.0, 100.0]
