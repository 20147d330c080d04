"""These are the keys of training, evaluation and the folder of a run."""

from configs.keys.model import BACKBONE, TRIPLET_LOSS
from configs.schema import Key, Needs, Settings, needs, needs_other
from engine.missing import SETTINGS
from modeling.branches import BRANCHES
from solver.build import OPTIMIZERS, SCHEDULES


def _rate_descends(given: Settings) -> bool:
    """Return whether an epoch is left for the cosine after its first, which has the full rate."""
    last = given["SOLVER.MAX_EPOCHS"] - 1
    return last > 0 and (given["SOLVER.SCHEDULE"] == "original" or last > given["SOLVER.WARMUP_EPOCHS"])


DESCENT = Needs(
    _rate_descends, "no epoch is left after the warm-up and one at the full rate", "raise SOLVER.MAX_EPOCHS", warn=True
)
BIASES = Needs(
    lambda given: given["MODEL.USE_SDTPS"] or given["MODEL.HDM"] or given["MODEL.GLOBAL_LOCAL"],
    "MODEL.USE_SDTPS, MODEL.HDM and MODEL.GLOBAL_LOCAL are False, and necks and classifiers learn no bias",
    "set one of them to True",
    warn=True,
)
WARMUP = (needs_other("SOLVER.WARMUP_EPOCHS", 0, "raise", warn=True),)
SGD = (needs("SOLVER.OPTIMIZER_NAME", "SGD", ", and only SGD has a momentum"),)
HINGE = (*TRIPLET_LOSS, needs("MODEL.NO_MARGIN", False))

RUN = {
    "SOLVER.OPTIMIZER_NAME": Key("Adam", tuple(OPTIMIZERS)).means("The optimiser."),
    "SOLVER.MAX_EPOCHS": Key(50, "[1, inf)").means("The number of epochs."),
    "SOLVER.SCHEDULE": Key("cosine", tuple(SCHEDULES)).means(
        "'cosine' warms each group up from WARMUP_START times its rate, then follows a cosine to MIN_LR_FACTOR "
        "times it; 'original', as DeMo's code, warms all groups up from WARMUP_START x BASE_LR, seven times the rate "
        "of the CLIP tower, and its cosine, which runs from the first epoch on, ends at MIN_LR_FACTOR x BASE_LR."
    ),
    "SOLVER.BASE_LR": Key(3.5e-4, "(0, inf)").means("The learning rate of everything except the backbone."),
    "SOLVER.BACKBONE_LR": Key(5e-6, "(0, inf)", BACKBONE).means(
        "The learning rate of the backbone, biases included; its camera embedding is new and uses BASE_LR."
    ),
    "SOLVER.LAYER_DECAY": Key(1.0, "(0, 1]", BACKBONE).means(
        "The factor on the rate from each layer of the backbone to the one before it; with 1 all have the same rate."
    ),
    "SOLVER.BIAS_LR_FACTOR": Key(2.0, "(0, inf)", (BIASES,)).means(
        "The factor on the learning rate of biases outside the backbone."
    ),
    "SOLVER.LARGE_FC_LR": Key(False).means("Double the learning rate of the classifiers."),
    "SOLVER.MOMENTUM": Key(0.9, "[0, 1)", SGD).means("The momentum of SGD."),
    "SOLVER.MARGIN": Key(0.3, "[0, inf)", HINGE).means(
        "The margin of the triplet loss, in Euclidean distance of the features before the neck."
    ),
    "SOLVER.WEIGHT_DECAY": Key(1e-4, "[0, inf)").means("The weight decay of weights, and of biases in the backbone."),
    "SOLVER.WEIGHT_DECAY_BIAS": Key(1e-4, "[0, inf)", (BIASES,)).means(
        "The weight decay of biases outside the backbone."
    ),
    "SOLVER.WARMUP_EPOCHS": Key(10, "[0, inf)").means("The number of epochs of linear warm-up."),
    "SOLVER.WARMUP_START": Key(0.1, "(0, 1]", WARMUP).means("The factor at which the warm-up starts; see SCHEDULE."),
    "SOLVER.MIN_LR_FACTOR": Key(0.001, "[0, 1]", (DESCENT,)).means(
        "The factor at which the cosine ends; see SCHEDULE."
    ),
    "SOLVER.LR_NOISE": Key(0.0, "[0, 1)").means(
        "Multiply the rate of each epoch by 1 + noise with |noise| up to this, which is 0 (off) or at least 0.001; "
        "DeMo uses 0.67 and does not log it."
    ),
    "SOLVER.CLIP_GRAD_NORM": Key(0.0, "[0, inf)").means("The largest norm of the whole gradient; 0 clips nothing."),
    "SOLVER.IMS_PER_BATCH": Key(64, "[1, inf)").means("The number of samples per step, of all processes together."),
    "SOLVER.ACCUMULATE": Key(1, "[1, inf)").means(
        "In how many parts the backbone processes the batch of a process, which saves memory and takes about a third "
        "more time; heads and losses still see the whole batch."
    ),
    "SOLVER.AMP": Key("auto", ("auto", "bf16", "fp16", "off")).means(
        "Mixed precision; 'auto' is bf16 where the GPU supports it, else fp16 with a scaler, and off on the CPU."
    ),
    "SOLVER.COMPILE": Key(False).means(
        "Compile the model with torch.compile; if that fails, a message says so and the model runs uncompiled."
    ),
    "SOLVER.SEED": Key(1111, "[0, inf)").means("The seed of weights, order, augmentation and Gumbel noise."),
    "SOLVER.LOG_PERIOD": Key(10, "[1, inf)").means(
        "The number of steps between updates of the losses in the progress bar, and the interval of SDTPS diagnostics."
    ),
    "SOLVER.EVAL_PERIOD": Key(1, "[1, inf)").means(
        "The number of epochs between evaluations; the last one is evaluated."
    ),
    "SOLVER.CHECKPOINT_PERIOD": Key(1, "[1, inf)").means(
        "The number of epochs between updates of last.pth; the last epoch is always saved."
    ),
    "TEST.IMS_PER_BATCH": Key(128, "[1, inf)").means("The number of samples per forward pass of the evaluation."),
    "TEST.WEIGHT": Key("").means("The checkpoint that test_net.py evaluates; '' stands for <OUTPUT_DIR>/best.pth."),
    "TEST.FEAT": Key("auto", ("auto", *BRANCHES, "all")).means(
        "The descriptor that is the embedding and by whose mAP 'best' is chosen, while all are evaluated regardless; "
        "'auto' is 'sdtps' if the model has it, else 'all'."
    ),
    "TEST.NECK_FEAT": Key("before", ("before", "after")).means(
        "Retrieve with the features before or after the BNNeck."
    ),
    "TEST.FEAT_NORM": Key(True).means("Scale descriptors to unit length before distances are computed."),
    "TEST.MISS": Key("nothing", SETTINGS).means("The modalities that are absent in the evaluation: r RGB, n NI, t TI."),
    "TEST.FLIP": Key(False).means("Average the descriptors of an image and of its mirror image."),
    "TEST.RE_RANKING": Key(False).means(
        "Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017; k1 50, k2 15, lambda 0.3)."
    ),
    "TEST.UNTRAINED": Key(True).means("Evaluate the model before its first step, as epoch 0."),
    "OUTPUT_DIR": Key("output").means(
        "The folder of the run: config.yaml, log.txt, metrics.jsonl, last.pth, best.pth and results.json."
    ),
}
