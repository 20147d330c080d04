"""Every key, its default, meaning, unit and legal values. Key names are DeMo's wherever DeMo has the key.

A comment above a key ends with its legal values in brackets where they are few. Rules that tie keys to each other
stand in `validate.py`, those on keys that would have no effect in `inert.py`; spellings of the original that are also
understood stand in `compat.py`.
"""

from yacs.config import CfgNode as CN

_C = CN()

# ---------------------------------------------------------------------------------------------------------- MODEL
_C.MODEL = CN()
# Where to run. 'auto' takes CUDA when there is a card. ['auto' | 'cuda' | 'cuda:N' | 'cpu']
_C.MODEL.DEVICE = "auto"
# 'ViT-B-16' is OpenAI CLIP's image tower with its projection on every token; 'ViT-Micro-8' is a small one for CPUs,
# 'ViT-Narrow-8' one of twelve blocks; any other name is a timm VisionTransformer or Eva model.
_C.MODEL.TRANSFORMER_TYPE = "ViT-B-16"
# Pretrained weights of the backbone: a file (OpenAI's ViT-B-16.pt, .pth, .safetensors), 'timm' to fetch timm's own
# by name, or '' for random weights.
_C.MODEL.PRETRAIN_PATH_T = ""
# Step between patches in pixels (height, width); smaller than the patch overlaps. 0 means the patch size.
_C.MODEL.STRIDE_SIZE = [0, 0]
# Add a learned embedding of the camera to the tokens (SIE), times SIE_COE.
_C.MODEL.SIE_CAMERA = False
_C.MODEL.SIE_COE = 1.0
# Stochastic depth of the backbone, as a probability. [0, 1)
_C.MODEL.DROP_PATH = 0.0
# Train nothing of the backbone but its camera embedding.
_C.MODEL.FROZEN = False
# Leave the embeddings and the first so many blocks of the backbone as they are. 0 = train all
_C.MODEL.FREEZE_BLOCKS = 0
# Recompute the backbone's blocks in the backward pass instead of keeping their activations: less memory, same numbers,
# about a third more time.
_C.MODEL.GRAD_CHECKPOINTING = False
# The ori branch: True concatenates the three globals under one neck and classifier, False gives each its own.
_C.MODEL.DIRECT = True

# DeMo (AAAI 2025). PIFE: each global becomes a reduction of itself and the mean of its patches. See modeling/pife.py.
_C.MODEL.GLOBAL_LOCAL = False
# HDM: the branch 'moe', a feature for each of the seven subsets of the modalities. See modeling/hdm.py.
_C.MODEL.HDM = False
# ATMoE: gated experts over those seven features; needs HDM. See modeling/atmoe.py.
_C.MODEL.ATM = False
# Heads of ATMoE; divides the width of the tokens (512 for ViT-B-16). The original: 4 for persons, 8 for vehicles.
_C.MODEL.HEAD = 4

# An absent modality: 'zero' is the original's empty image; 'drop' takes no part (no tokens in HDM, no score source in
# SDTPS, zeros in the concatenated features, no term in a loss of its own). ['zero' | 'drop']
_C.MODEL.MISSING = "zero"
# Weight of the identity loss (cross-entropy) and of the triplet loss, for every head.
_C.MODEL.ID_LOSS_WEIGHT = 1.0
_C.MODEL.TRIPLET_LOSS_WEIGHT = 1.0
# True: soft-margin triplet loss; False: hinge with SOLVER.MARGIN.
_C.MODEL.NO_MARGIN = False
# Label smoothing of 0.1 in the identity loss.
_C.MODEL.IF_LABELSMOOTH = True

# SDTPS: cross-modal patch selection (TokenSparse) and aggregation (TokenAggregation). See modeling/sdtps.py.
_C.MODEL.USE_SDTPS = False
# Where it selects: 0 after the last block of the backbone (the form of the paper, saves no compute), or after block k,
# so that the rest of the backbone runs on the tokens that are left. A list selects at several places: [4, 8].
_C.MODEL.SDTPS_BLOCK = 0
# rho, the share of patches that are kept: ceil(rho N) of N. (0, 1]; 1 keeps all and makes no extra token.
# This and the next may be a list, one for each place of SDTPS_BLOCK.
_C.MODEL.SDTPS_SPARSE_RATIO = 0.5
# alpha, the share of the kept ones that come out of the aggregation: floor(alpha rho N), at least one. (0, 1]
_C.MODEL.SDTPS_AGGR_RATIO = 0.4
# How patches are scored: 'sdtps' is eq. 1-3 of SEPS, 'centre' a control that looks at the position alone.
# ['sdtps' | 'centre']
_C.MODEL.SDTPS_SCORE = "sdtps"
# What becomes of the kept patches: 'learned' combinations (eq. 4 of SEPS), or 'none'. ['learned' | 'none']
_C.MODEL.SDTPS_AGGREGATION = "learned"
# beta: score = (1 - 2 beta) s_p + beta (s_m2 + s_m3 + 2 s_im). [0, 0.5]
_C.MODEL.SDTPS_BETA = 0.25
# Straight-through Gumbel-Softmax decision in training, so that gradient reaches the score of dropped patches too.
_C.MODEL.SDTPS_USE_GUMBEL = False
# Temperature of that softmax. > 0
_C.MODEL.SDTPS_GUMBEL_TAU = 1.0
# In training, keep the top-K of score + Gumbel noise: sampling without replacement instead of the plain top-K.
_C.MODEL.SDTPS_GUMBEL_SAMPLE = False
# Weight of the sdtps head's losses. >= 0
_C.MODEL.SDTPS_LOSS_WEIGHT = 1.0
# False leaves the MLP predictor out: score = s_im + s_m2 + s_m3, the rule of SEPS's public code.
_C.MODEL.SDTPS_USE_PREDICTOR = True
# Hand the decision matrix D to the aggregation as a mask (the way the Gumbel gradient reaches the score).
_C.MODEL.SDTPS_MASK_AGGREGATION = True
# No gradient through the attention scores s_im, s_m2, s_m3.
_C.MODEL.SDTPS_DETACH_ATTENTION = True

# ---------------------------------------------------------------------------------------------------------- INPUT
_C.INPUT = CN()
# Image size (height, width) in pixels; persons 256 x 128, vehicles 128 x 256; up to 4096. The two must be equal.
_C.INPUT.SIZE_TRAIN = [256, 128]
_C.INPUT.SIZE_TEST = [256, 128]
# Probability of a horizontal flip. [0, 1]
_C.INPUT.PROB = 0.5
# Probability of random erasing. [0, 1]
_C.INPUT.RE_PROB = 0.5
# Pixels of black padding on every side before the random crop back to size. [0, 256]
_C.INPUT.PADDING = 10
# Per-channel mean and standard deviation of pixels scaled to [0, 1].
_C.INPUT.PIXEL_MEAN = [0.5, 0.5, 0.5]
_C.INPUT.PIXEL_STD = [0.5, 0.5, 0.5]
# True: one flip, crop and erased rectangle for the three modalities, which stay aligned. False: as the original,
# drawn for each modality by itself.
_C.INPUT.SYNC_AUG = True
# Probability that a modality of a training sample is made absent; at least one stays. [0, 1)
_C.INPUT.MODALITY_DROPOUT = 0.0

# ------------------------------------------------------------------------------------------------------- DATASETS
_C.DATASETS = CN()
# Data set. ['RGBNT201' | 'RGBNT100' | 'MSVR310' | 'WMVeID863' | 'manifest' | 'synthetic']
_C.DATASETS.NAMES = "synthetic"
# Folder that holds the data set (RGBNT201/train_171/RGB/...), or into which the synthetic one is written; the CSV file
# of a manifest.
_C.DATASETS.ROOT_DIR = "datasets"
# Of a manifest: a query ignores the images of its own identity from the same camera, or from the same scene. The other
# data sets have their own. ['camera' | 'scene']
_C.DATASETS.PROTOCOL = "camera"
# Identities of the training set held out as a validation split on which 'best' is then chosen; 0 = none, and
# 'best' is chosen on the test set, as the field does.
_C.DATASETS.VAL_IDS = 0

# The synthetic set (DATASETS.NAMES: synthetic), generated on first use. RGBNT201's own size is 171 / 30 identities
# and 3951 / 836 triplets.
_C.SYNTHETIC = CN()
_C.SYNTHETIC.TRAIN_IDS = 96
_C.SYNTHETIC.TEST_IDS = 20
_C.SYNTHETIC.TRAIN_IMAGES = 768
_C.SYNTHETIC.TEST_IMAGES = 240
# Size of the JPEGs (height, width) in pixels. [16, 4096]
_C.SYNTHETIC.SIZE = [256, 128]
# From 0 (clean) to 1: how often and how badly modalities are ruined, figures occluded, cameras apart.
_C.SYNTHETIC.DIFFICULTY = 0.25
_C.SYNTHETIC.SEED = 0

# ----------------------------------------------------------------------------------------------------- DATALOADER
_C.DATALOADER = CN()
# Worker processes of the loader; 0 loads in the training process. Also the threads that decode JPEGs (at least 1).
# [0, 256]
_C.DATALOADER.NUM_WORKERS = 4
# 'softmax_triplet': batches of P identities x NUM_INSTANCE images, both losses. 'softmax': shuffled, no triplet.
_C.DATALOADER.SAMPLER = "softmax_triplet"
# K, images per identity in a batch; divides SOLVER.IMS_PER_BATCH.
_C.DATALOADER.NUM_INSTANCE = 8
# Decoded images. 'auto': one memory-mapped uint8 file on disk, made once. 'off': decoded into memory at every start.
# 'device': as 'auto', then held on MODEL.DEVICE. ['auto' | 'off' | 'device']
_C.DATALOADER.CACHE = "auto"
# Folder of that file; '' means .decoded in ROOT_DIR (beside a manifest)
_C.DATALOADER.CACHE_DIR = ""

# --------------------------------------------------------------------------------------------------------- SOLVER
_C.SOLVER = CN()
# ['Adam' | 'AdamW' | 'SGD']
_C.SOLVER.OPTIMIZER_NAME = "Adam"
_C.SOLVER.MAX_EPOCHS = 50
# 'cosine': every group warms up from WARMUP_START x its own rate, then a cosine to MIN_LR_FACTOR x it. 'original': as
# the original code, all groups warm up from WARMUP_START x BASE_LR, seven times the CLIP tower's rate, and the cosine,
# to MIN_LR_FACTOR x BASE_LR, has been running since the first epoch. ['cosine' | 'original']
_C.SOLVER.SCHEDULE = "cosine"
# Learning rate of everything but the backbone.
_C.SOLVER.BASE_LR = 3.5e-4
# Learning rate of the backbone, biases included; its camera embedding is new and has BASE_LR.
_C.SOLVER.BACKBONE_LR = 5e-6
# Factor on the rate from each layer of the backbone to the one before it. (0, 1]; 1 = one rate for all
_C.SOLVER.LAYER_DECAY = 1.0
# Factor on the learning rate of biases outside the backbone.
_C.SOLVER.BIAS_LR_FACTOR = 2.0
# Double the learning rate of the classifiers.
_C.SOLVER.LARGE_FC_LR = False
# Momentum of SGD.
_C.SOLVER.MOMENTUM = 0.9
# Margin of the triplet loss (Euclidean distance of features before the neck).
_C.SOLVER.MARGIN = 0.3
# Weight decay of weights, and of biases outside the backbone.
_C.SOLVER.WEIGHT_DECAY = 1e-4
_C.SOLVER.WEIGHT_DECAY_BIAS = 1e-4
# Epochs of linear warm-up; see SCHEDULE for what the two factors multiply.
_C.SOLVER.WARMUP_EPOCHS = 10
_C.SOLVER.WARMUP_START = 0.1
_C.SOLVER.MIN_LR_FACTOR = 0.001
# Multiply the rate of each epoch by 1 + noise, |noise| up to this (the original: 0.67, unlogged). 0 = off. [0.001, 1)
_C.SOLVER.LR_NOISE = 0.0
# Largest norm of the whole gradient; 0 = no clipping.
_C.SOLVER.CLIP_GRAD_NORM = 0.0
# Images (triplets) per step, of all processes together.
_C.SOLVER.IMS_PER_BATCH = 64
# Parts in which the backbone takes the batch (of each process), for less memory at about a third more time. Heads and
# losses still see the whole batch, so that the triplet loses nothing. 1 = off; at most IMS_PER_BATCH.
_C.SOLVER.ACCUMULATE = 1
# Mixed precision. 'auto': bf16 where the card has it, else fp16 with a scaler; off on the CPU.
# ['auto' | 'bf16' | 'fp16' | 'off']
_C.SOLVER.AMP = "auto"
# torch.compile the model; where it does not compile, a message says so and the model runs as it is.
_C.SOLVER.COMPILE = False
# Seed of everything that is drawn: weights, order, augmentation, Gumbel noise.
_C.SOLVER.SEED = 1111
# Steps between updates of the losses shown in the progress bar, and between those that the figures on SDTPS in
# metrics.jsonl are of.
_C.SOLVER.LOG_PERIOD = 10
# Epochs between evaluations and between writings of last.pth; the last epoch always does both.
_C.SOLVER.EVAL_PERIOD = 1
_C.SOLVER.CHECKPOINT_PERIOD = 1

# ----------------------------------------------------------------------------------------------------------- TEST
_C.TEST = CN()
# Images (triplets) per forward pass of the evaluation.
_C.TEST.IMS_PER_BATCH = 128
# Checkpoint that test_net.py evaluates; '' means <OUTPUT_DIR>/best.pth
_C.TEST.WEIGHT = ""
# Feature that `embedding` is and that the headline figure and 'best' go by; every pattern is scored all the same.
# 'auto': sdtps where there is one, else all. ['auto' | 'ori' | 'moe' | 'sdtps' | 'all']
_C.TEST.FEAT = "auto"
# Retrieve with the feature before or after the BNNeck. ['before' | 'after']
_C.TEST.NECK_FEAT = "before"
# Scale features to unit length before the distance.
_C.TEST.FEAT_NORM = True
# Score with these modalities absent: r RGB, n NI, t TI. ['nothing' | 'r' | 'n' | 't' | 'rn' | 'rt' | 'nt']
_C.TEST.MISS = "nothing"
# Use the mean of the features of an image and of its mirror image.
_C.TEST.FLIP = False
# k-reciprocal re-ranking of the distances (Zhong et al., CVPR 2017; k1 50, k2 15, lambda 0.3).
_C.TEST.RE_RANKING = False
# Score the model before its first step, as epoch 0.
_C.TEST.UNTRAINED = True

# Folder of the run: config.yaml, log.txt, metrics.jsonl, last.pth, best.pth, results.json.
_C.OUTPUT_DIR = "output"
