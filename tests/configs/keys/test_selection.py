"""A key of the patch selection is refused wherever it would have no effect, and taken wherever it has one."""

import pytest

from configs import get_cfg
from utils.errors import UserError

SDTPS_ON = ["MODEL.USE_SDTPS", True]
GUMBEL_ON = [*SDTPS_ON, "MODEL.SDTPS_USE_GUMBEL", True]
SAMPLED = [*GUMBEL_ON, "MODEL.SDTPS_GUMBEL_SAMPLE", True]
SAMPLED_WITHOUT_GRADIENT = [*SAMPLED, "MODEL.SDTPS_USE_PREDICTOR", False]
CENTRE = [*SDTPS_ON, "MODEL.SDTPS_SCORE", "centre"]
KEPT = [*SDTPS_ON, "MODEL.SDTPS_AGGREGATION", "none"]
ALL_KEPT = [*SDTPS_ON, "MODEL.SDTPS_SPARSE_RATIO", 1]
GATED = ["MODEL.SDTPS_GATE", True]
TWICE = [*SDTPS_ON, "MODEL.SDTPS_BLOCK", [1, 2]]
ATTACHED = [*SDTPS_ON, "MODEL.SDTPS_DETACH_ATTENTION", False]
FROZEN = ["MODEL.FROZEN", True]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([*SDTPS_ON, "MODEL.SDTPS_SPARSE_RATIO", 0], r"SDTPS_SPARSE_RATIO is 0\.0\. Allowed: \(0, 1\]"),
        ([*SDTPS_ON, "MODEL.SDTPS_SPARSE_RATIO", 1.5], r"Allowed: \(0, 1\]"),
        ([*SDTPS_ON, "MODEL.SDTPS_BETA", 0.6], r"Allowed: \[0, 0\.5\]"),
        (["MODEL.SDTPS_BETA", 0.1], r"no effect: MODEL\.USE_SDTPS is False"),
        ([*SDTPS_ON, "MODEL.SDTPS_GUMBEL_TAU", 2], r"no effect: MODEL\.SDTPS_USE_GUMBEL is False"),
        ([*SDTPS_ON, "MODEL.SDTPS_GUMBEL_SAMPLE", True], "no effect"),
        ([*SDTPS_ON, "MODEL.SDTPS_MASK_AGGREGATION", False], "no effect"),
        ([*GUMBEL_ON, "MODEL.SDTPS_MASK_AGGREGATION", False], r"SDTPS_USE_GUMBEL is True.*no effect"),
        ([*GUMBEL_ON, "MODEL.SDTPS_USE_PREDICTOR", False], "reaches no parameter"),
        ([*SDTPS_ON, "MODEL.SDTPS_USE_PREDICTOR", False, "MODEL.SDTPS_BETA", 0.1], "no effect"),
        ([*SDTPS_ON, "MODEL.SDTPS_SPARSE_RATIO", 1, "MODEL.SDTPS_BETA", 0.1], "every patch is kept"),
        ([*SDTPS_ON, "MODEL.SDTPS_BETA", 0, "MODEL.SDTPS_DETACH_ATTENTION", False], "no weight"),
        ([*GUMBEL_ON, "MODEL.SDTPS_BETA", 0.5], r"SDTPS_USE_GUMBEL is True.*reaches no parameter"),
        ([*GUMBEL_ON, "MODEL.SDTPS_LOSS_WEIGHT", 0], r"SDTPS_USE_GUMBEL is True.*SDTPS_LOSS_WEIGHT of 0"),
        ([*SAMPLED_WITHOUT_GRADIENT, "MODEL.SDTPS_GUMBEL_TAU", 2], r"SDTPS_GUMBEL_TAU is 2\.0.*reaches a parameter"),
        ([*SAMPLED_WITHOUT_GRADIENT, "MODEL.SDTPS_MASK_AGGREGATION", False], "no gradient of the score"),
        ([*FROZEN, *ATTACHED, *GUMBEL_ON, "MODEL.SDTPS_BETA", 0.5], "reaches no parameter"),
        ([*CENTRE, "MODEL.SDTPS_BETA", 0.1], r"BETA is 0\.1.*SDTPS_SCORE is not 'sdtps'"),
        ([*CENTRE, "MODEL.SDTPS_USE_PREDICTOR", False], "SDTPS_SCORE is not 'sdtps'"),
        ([*CENTRE, "MODEL.SDTPS_DETACH_ATTENTION", False], "SDTPS_SCORE is not 'sdtps'"),
        ([*CENTRE, *GUMBEL_ON], r"SDTPS_USE_GUMBEL is True.*reaches no parameter"),
        ([*CENTRE, *SAMPLED, "MODEL.SDTPS_GUMBEL_TAU", 2], "SDTPS_SCORE is not 'sdtps'"),
        ([*CENTRE, *SAMPLED, "MODEL.SDTPS_MASK_AGGREGATION", False], "SDTPS_SCORE is not 'sdtps'"),
        ([*CENTRE, "MODEL.SDTPS_SPARSE_RATIO", 1], "SDTPS_SCORE is 'centre'.*every patch is kept"),
        (["MODEL.SDTPS_SCORE", "centre"], "USE_SDTPS is False"),
        ([*KEPT, "MODEL.SDTPS_AGGR_RATIO", 0.5], r"AGGR_RATIO is 0\.5.*SDTPS_AGGREGATION is not 'learned'"),
        (
            [*SDTPS_ON, "MODEL.SDTPS_AGGREGATION", "mean", "MODEL.SDTPS_AGGR_RATIO", 0.5],
            r"AGGR_RATIO is 0\.5.*SDTPS_AGGREGATION is not 'learned' or 'merge'",
        ),
        ([*KEPT, *GUMBEL_ON], r"SDTPS_USE_GUMBEL is True.*reaches no parameter"),
        ([*KEPT, *SAMPLED, "MODEL.SDTPS_GUMBEL_TAU", 2], "SDTPS_AGGREGATION is not 'learned'"),
        ([*KEPT, *SAMPLED, "MODEL.SDTPS_MASK_AGGREGATION", False], "SDTPS_AGGREGATION is not 'learned'"),
        ([*SDTPS_ON, "MODEL.SDTPS_SCORE", "best"], "Allowed: 'sdtps', 'opencode', 'aligned'"),
        ([*SDTPS_ON, "MODEL.SDTPS_BLOCK", []], r"SDTPS_BLOCK is \[\]"),
        ([*ALL_KEPT, "MODEL.SDTPS_EXTRA_TOKEN", False], "EXTRA_TOKEN is False.*every patch is kept"),
        ([*ALL_KEPT, "MODEL.SDTPS_ANNEAL_EPOCHS", 5], "ANNEAL_EPOCHS is 5.*every patch is kept"),
        (
            [*SDTPS_ON, "MODEL.SDTPS_ANNEAL_EPOCHS", 20, "SOLVER.MAX_EPOCHS", 20],
            "ANNEAL_EPOCHS is 20 of SOLVER.MAX_EPOCHS 20.*lower SDTPS_ANNEAL_EPOCHS",
        ),
        ([*SDTPS_ON, *GATED], "GATE is True.*SDTPS_AGGREGATION is not 'none'"),
        (
            [*ATTACHED, "MODEL.SDTPS_EXTRA_TOKEN", False],
            "DETACH_ATTENTION is False.*nothing gives the score a gradient",
        ),
    ],
)
def test_a_key_without_effect_is_refused(opts, message):
    with pytest.raises(UserError, match=message):
        get_cfg(None, opts)


@pytest.mark.parametrize(
    "opts",
    [
        [*FROZEN, "MODEL.GLOBAL_LOCAL", True, *ATTACHED],
        [*FROZEN, "MODEL.SDTPS_BLOCK", [2, 4], *ATTACHED],
        [*FROZEN, "MODEL.SIE_CAMERA", True, *ATTACHED],
        ["MODEL.FREEZE_BLOCKS", 3, "MODEL.SDTPS_BLOCK", 4, *ATTACHED],
        [*GUMBEL_ON, "MODEL.SDTPS_LOSS_WEIGHT", 0, "MODEL.SDTPS_BLOCK", 4],
        [*GUMBEL_ON, "MODEL.SDTPS_BETA", 0.5, "MODEL.SDTPS_DETACH_ATTENTION", False],
        SAMPLED_WITHOUT_GRADIENT,
        [*CENTRE, *SAMPLED],
        [*KEPT, *SAMPLED],
        [*KEPT, *SAMPLED, *GATED],
        [*ATTACHED, *KEPT, *GATED, "MODEL.SDTPS_EXTRA_TOKEN", False],
        [*CENTRE, *KEPT, *ALL_KEPT, *GATED],
        [*SDTPS_ON, "MODEL.SDTPS_SCORE", "aligned", "MODEL.SDTPS_USE_GUMBEL", True],
        [*SDTPS_ON, "MODEL.SDTPS_AGGREGATION", "merge", "MODEL.SDTPS_AGGR_RATIO", 0.5],
        [*TWICE, "MODEL.SDTPS_SPARSE_RATIO", [1, 0.5], "MODEL.SDTPS_EXTRA_TOKEN", False],
    ],
)
def test_a_key_that_acts_by_another_way_is_taken(opts):
    get_cfg(None, opts)
