"""The keys of SDTPS, the cross-modal patch selection, and the conditions for them to have an effect."""

from collections.abc import Mapping

from configs.schema import Key, Needs, Settings, as_list, needs, needs_one_of, needs_other
from modeling.selection import AGGREGATIONS, SCORES
from modeling.selection.aggregations import SHRINKING

COSINES = ("sdtps", "opencode")
"""The scores that are made of cosines with the globals."""


def _score_is_read(given: Settings) -> bool:
    """Return whether the score matters; if every patch is kept, only the Gumbel decision and the gate depend on it."""
    read = given["MODEL.SDTPS_USE_GUMBEL"] or given["MODEL.SDTPS_GATE"]
    return read or any(ratio != 1 for ratio in as_list(given["MODEL.SDTPS_SPARSE_RATIO"]))


def _gumbel_acts(given: Settings) -> bool:
    return given["MODEL.SDTPS_GUMBEL_SAMPLE"] or (given["MODEL.SDTPS_MASK_AGGREGATION"] and _decision_trains(given))


def _decision_trains(given: Settings) -> bool:
    """Return whether the gradient of the decision, if it is the mask of the aggregation, reaches a parameter."""
    return given["MODEL.SDTPS_AGGREGATION"] == "learned" and _score_trains(given)


def _score_trains(given: Settings) -> bool:
    """Return whether a loss depends on the selected tokens, and a gradient of the score reaches a parameter."""
    if given["MODEL.SDTPS_LOSS_WEIGHT"] == 0 and as_list(given["MODEL.SDTPS_BLOCK"])[0] == 0:
        return False
    score = given["MODEL.SDTPS_SCORE"]
    by_predictor = score == "sdtps" and given["MODEL.SDTPS_USE_PREDICTOR"] and given["MODEL.SDTPS_BETA"] < 0.5
    by_attention = score in COSINES and not given["MODEL.SDTPS_DETACH_ATTENTION"] and _tokens_are_trained(given)
    return score == "aligned" or by_predictor or by_attention


def _score_has_gradient(given: Settings) -> bool:
    """Return whether the tokens that come out depend on the values of the scores, and not on their order alone."""
    masked = given["MODEL.SDTPS_USE_GUMBEL"] and given["MODEL.SDTPS_MASK_AGGREGATION"] and _decision_trains(given)
    return given["MODEL.SDTPS_EXTRA_TOKEN"] or given["MODEL.SDTPS_GATE"] or masked


def _tokens_are_trained(given: Settings) -> bool:
    """Return whether a gradient of the tokens that are scored reaches a parameter before the selection."""
    first, *later = as_list(given["MODEL.SDTPS_BLOCK"])
    if given["MODEL.SIE_CAMERA"] or later:  # the first stage makes the tokens of the second
        return True
    if first == 0:
        return given["MODEL.GLOBAL_LOCAL"] or not given["MODEL.FROZEN"]
    return not given["MODEL.FROZEN"] and first > given["MODEL.FREEZE_BLOCKS"]


def _describe(parts: Mapping[str, type]) -> str:
    """Write what each part does, in the first sentence of its docstring."""
    return " ".join(f"{name!r}: {part.__doc__.splitlines()[0]}" for name, part in parts.items())


SDTPS = needs("MODEL.USE_SDTPS")
LEARNED = needs("MODEL.SDTPS_AGGREGATION", "learned")
GUMBEL = needs("MODEL.SDTPS_USE_GUMBEL", note=", so that the decision is a constant 1 on the kept patches")
SCORE_IS_READ = Needs(
    _score_is_read,
    "MODEL.SDTPS_SPARSE_RATIO is 1, so every patch is kept and nothing reads the score",
    "lower MODEL.SDTPS_SPARSE_RATIO",
)
GUMBEL_ACTS = Needs(
    _gumbel_acts,
    "the gradient of the decision reaches no parameter (without a mask in a learned aggregation, with a "
    "SDTPS_LOSS_WEIGHT of 0, or without a predictor that has a weight in the score or an attention that trains the "
    "tokens), and patches are not sampled either",
    "set MODEL.SDTPS_MASK_AGGREGATION: True and keep the predictor, or set MODEL.SDTPS_GUMBEL_SAMPLE: True",
)
DECISION_TRAINS = Needs(
    _decision_trains,
    "no gradient of the score reaches a parameter (without a predictor that has a weight in it or an attention that "
    "trains the tokens, or with a SDTPS_LOSS_WEIGHT of 0)",
    "set MODEL.SDTPS_USE_PREDICTOR: True, with MODEL.SDTPS_BETA below 0.5 and MODEL.SDTPS_LOSS_WEIGHT above 0",
)
SCORE = (SDTPS, needs("MODEL.SDTPS_SCORE", "sdtps"), SCORE_IS_READ)
DROPS = (SDTPS, needs_other("MODEL.SDTPS_SPARSE_RATIO", 1, "lower", ", so that every patch is kept"))
GATE = (SDTPS, needs("MODEL.SDTPS_AGGREGATION", "none"))
BETA = (*SCORE, needs("MODEL.SDTPS_USE_PREDICTOR", note=", and the score is then s_im + s_m2 + s_m3"))
ATTENTION = (
    SDTPS,
    needs_one_of("MODEL.SDTPS_SCORE", COSINES),
    SCORE_IS_READ,
    needs_other("MODEL.SDTPS_BETA", 0, "raise", ", so that the attention scores have no weight"),
    Needs(
        _score_has_gradient,
        "nothing gives the score a gradient, neither an extra token nor a gate nor the Gumbel decision as a mask",
        "set MODEL.SDTPS_EXTRA_TOKEN: True or MODEL.SDTPS_GATE: True",
    ),
)
MASK = (SDTPS, needs_one_of("MODEL.SDTPS_SCORE", (*COSINES, "aligned")), GUMBEL, LEARNED, DECISION_TRAINS)
TAU = (*MASK, needs("MODEL.SDTPS_MASK_AGGREGATION", note=", and nothing uses the soft decision"))
SAMPLE = (SDTPS, GUMBEL, DROPS[1])

SELECTION = {
    "MODEL.USE_SDTPS": Key(False).means(
        "SDTPS: select patches across the modalities, aggregate them, and add the branch 'sdtps'."
    ),
    "MODEL.SDTPS_SCORE": Key("sdtps", tuple(SCORES), (SDTPS, SCORE_IS_READ)).means(
        f"How the patches are scored. {_describe(SCORES)}"
    ),
    "MODEL.SDTPS_AGGREGATION": Key("learned", tuple(AGGREGATIONS), (SDTPS,)).means(
        f"What becomes of the kept patches. {_describe(AGGREGATIONS)}"
    ),
    "MODEL.SDTPS_BLOCK": Key(0, "[0, inf)", (SDTPS,), per_stage=True).means(
        "After how many blocks of the backbone SDTPS selects, so that the rest runs on fewer tokens; 0 is after the "
        "last one, as in the paper, which saves nothing; an ascending list, such as [4, 8], selects in several stages."
    ),
    "MODEL.SDTPS_SPARSE_RATIO": Key(0.5, "(0, 1]", (SDTPS,), per_stage=True).means(
        "rho, the share of patches that are kept: ceil(rho N) of N; 1 keeps all of them and makes no extra token."
    ),
    "MODEL.SDTPS_AGGR_RATIO": Key(
        0.4, "(0, 1]", (SDTPS, needs_one_of("MODEL.SDTPS_AGGREGATION", SHRINKING)), per_stage=True
    ).means("alpha, the ratio of aggregated tokens to kept patches: floor(alpha rho N) tokens, and at least one."),
    "MODEL.SDTPS_EXTRA_TOKEN": Key(True, needs=DROPS).means(
        "Fold the dropped patches into one extra token; without it they are forgotten."
    ),
    "MODEL.SDTPS_GATE": Key(False, needs=GATE).means(
        "Let each kept patch count by a gate, 2 sigmoid(score - mean score), in the attention of the blocks that "
        "follow and in the mean of the branch 'sdtps', so that the losses teach the score directly."
    ),
    "MODEL.SDTPS_ANNEAL_EPOCHS": Key(0, "[0, inf)", DROPS).means(
        "Over how many epochs at the start of the training the share of kept patches falls from 1 to "
        "SDTPS_SPARSE_RATIO, by half a cosine; 0 trains with SDTPS_SPARSE_RATIO from the start."
    ),
    "MODEL.SDTPS_BETA": Key(0.25, "[0, 0.5]", BETA).means(
        "beta, the weight of the attention: score = (1 - 2 beta) s_p + beta (s_m2 + s_m3 + 2 s_im)."
    ),
    "MODEL.SDTPS_USE_GUMBEL": Key(False, needs=(SDTPS, GUMBEL_ACTS)).means(
        "In training, decide by a straight-through Gumbel-Softmax, so that dropped patches pass on a gradient, too."
    ),
    "MODEL.SDTPS_GUMBEL_TAU": Key(1.0, "(0, inf)", TAU).means("The temperature of that softmax."),
    "MODEL.SDTPS_GUMBEL_SAMPLE": Key(False, needs=SAMPLE).means(
        "In training, keep the top K of score + Gumbel noise, which samples patches, instead of the plain top K."
    ),
    "MODEL.SDTPS_LOSS_WEIGHT": Key(1.0, "[0, inf)", (SDTPS,)).means("The weight of the losses of the head 'sdtps'."),
    "MODEL.SDTPS_USE_PREDICTOR": Key(True, needs=SCORE).means(
        "Use the MLP predictor; without it the score is s_im + s_m2 + s_m3, as in the public code of SEPS."
    ),
    "MODEL.SDTPS_MASK_AGGREGATION": Key(True, needs=MASK).means(
        "Use the decision as a mask in the aggregation, through which the Gumbel gradient reaches the score."
    ),
    "MODEL.SDTPS_DETACH_ATTENTION": Key(True, needs=ATTENTION).means(
        "Let no gradient pass through the attention scores s_im, s_m2 and s_m3."
    ),
}
