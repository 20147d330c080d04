"""These are the keys of the model, its branches and its losses, except those of the patch selection."""

from configs.schema import Key, needs, needs_other

IDENTITIES = needs("DATALOADER.SAMPLER", "softmax_triplet", ", so that there is no triplet loss")
TRIPLET_LOSS = (IDENTITIES, needs_other("MODEL.TRIPLET_LOSS_WEIGHT", 0, "raise", ", so that there is no triplet loss"))
SIE = (needs("MODEL.SIE_CAMERA"),)
BACKBONE = (
    needs("MODEL.FROZEN", False, ", so the whole backbone is left as it is, but for a camera embedding, at BASE_LR"),
)
EXPERTS = (needs("MODEL.HDM", note=", and the experts work on its features"),)
IDENTITY_LOSS = (needs_other("MODEL.ID_LOSS_WEIGHT", 0, "raise"),)

MODEL = {
    "MODEL.DEVICE": Key("auto").means(
        "Where to run: 'cpu', 'cuda', 'cuda:N', or 'auto', which is CUDA if there is a GPU."
    ),
    "MODEL.TRANSFORMER_TYPE": Key("ViT-B-16").means(
        "The backbone: 'ViT-B-16' (the image tower of OpenAI's CLIP, with its projection on every token), "
        "'ViT-Micro-8' (small, for CPUs), 'ViT-Narrow-8' (twelve narrow blocks), or the name of a "
        "timm VisionTransformer or Eva model."
    ),
    "MODEL.PRETRAIN_PATH_T": Key("").means(
        "The pretrained weights of the backbone: a file (OpenAI's ViT-B-16.pt, .pth, .safetensors), 'timm' to download "
        "timm's weights of that name, or '' for random weights."
    ),
    "MODEL.STRIDE_SIZE": Key([0, 0], "[0, inf)").means(
        "The step between patches (height, width) in pixels; one smaller than a patch makes them overlap, and [0, 0] "
        "stands for the size of a patch."
    ),
    "MODEL.SIE_CAMERA": Key(False).means("Add a learned embedding of the camera (SIE), times SIE_COE, to the tokens."),
    "MODEL.SIE_COE": Key(1.0, "(0, inf)", SIE).means("The factor on the camera embedding."),
    "MODEL.DROP_PATH": Key(0.0, "[0, 1)").means("The probability of stochastic depth in the backbone."),
    "MODEL.FROZEN": Key(False).means("Train no parameter of the backbone except its camera embedding."),
    "MODEL.FREEZE_BLOCKS": Key(0, "[0, inf)", BACKBONE).means(
        "How many blocks at the start of the backbone, and with them the embeddings, are not trained; 0 trains all."
    ),
    "MODEL.GRAD_CHECKPOINTING": Key(False).means(
        "Recompute the blocks of the backbone in the backward pass instead of storing their activations, which saves "
        "memory, leaves the numbers unchanged, and takes about a third more time."
    ),
    "MODEL.DIRECT": Key(True).means(
        "In the branch 'ori', True concatenates the three class tokens under one neck and classifier, and False gives "
        "each of them its own."
    ),
    "MODEL.GLOBAL_LOCAL": Key(False).means(
        "PIFE of DeMo (AAAI 2025): reduce each class token and the mean of its patches to a new class token."
    ),
    "MODEL.HDM": Key(False).means(
        "HDM of DeMo: add the branch 'moe' with a feature for each subset of the modalities."
    ),
    "MODEL.ATM": Key(False, needs=EXPERTS).means("ATMoE of DeMo: gated experts on the seven features of HDM."),
    "MODEL.HEAD": Key(4, "[1, inf)", (needs("MODEL.ATM", warn=True),)).means(
        "The number of attention heads of ATMoE, which must divide the width of the tokens (512 for ViT-B-16); DeMo "
        "uses 4 for persons and 8 for vehicles."
    ),
    "MODEL.MISSING": Key("zero", ("zero", "drop")).means(
        "'zero' treats an absent modality as an empty image, as DeMo does; 'drop' gives it no tokens in HDM, no part "
        "in the score of SDTPS, zeros in concatenated features, and no term in a loss of its own."
    ),
    "MODEL.ID_LOSS_WEIGHT": Key(1.0, "[0, inf)").means(
        "The weight of the identity loss (cross-entropy) of every head."
    ),
    "MODEL.TRIPLET_LOSS_WEIGHT": Key(1.0, "[0, inf)", (IDENTITIES,)).means(
        "The weight of the triplet loss (batch-hard) of every head."
    ),
    "MODEL.NO_MARGIN": Key(False, needs=TRIPLET_LOSS).means(
        "Use the soft-margin form of the triplet loss instead of the hinge with SOLVER.MARGIN."
    ),
    "MODEL.IF_LABELSMOOTH": Key(True, needs=IDENTITY_LOSS).means("Smooth the labels of the identity loss by 0.1."),
}
