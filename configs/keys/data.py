"""These are the keys of images, data sets and loading."""

from configs.schema import Key, Needs, Settings, needs, needs_other
from data.datasets import DATASETS


def _geometry_is_random(given: Settings) -> bool:
    return given["INPUT.PROB"] not in (0, 1) or given["INPUT.PADDING"] > 0 or given["INPUT.RE_PROB"] > 0


GEOMETRY = Needs(
    _geometry_is_random,
    "there is no random flip, crop or erasing to share (INPUT.PROB, INPUT.PADDING, INPUT.RE_PROB)",
    "raise one of them",
)
MANIFEST = (needs("DATASETS.NAMES", "manifest", ", and the other data sets have a protocol of their own"),)
SYNTHETIC = (needs("DATASETS.NAMES", "synthetic"),)
IDENTITIES = (needs("DATALOADER.SAMPLER", "softmax_triplet"),)
STORE = (needs_other("DATALOADER.CACHE", "off", "change", warn=True),)

DATA = {
    "INPUT.SIZE_TRAIN": Key([256, 128], "[1, 4096]").means(
        "The size of the images (height, width) in pixels; persons 256 x 128, vehicles 128 x 256."
    ),
    "INPUT.SIZE_TEST": Key([256, 128], "[1, 4096]").means("The size in the evaluation, which must equal SIZE_TRAIN."),
    "INPUT.PROB": Key(0.5, "[0, 1]").means("The probability of a horizontal flip."),
    "INPUT.RE_PROB": Key(0.5, "[0, 1]").means("The probability of random erasing."),
    "INPUT.PADDING": Key(10, "[0, 256]").means("The black border, in pixels, that is added before the random crop."),
    "INPUT.PIXEL_MEAN": Key([0.5, 0.5, 0.5]).means("The mean per channel of pixels that are scaled to [0, 1]."),
    "INPUT.PIXEL_STD": Key([0.5, 0.5, 0.5], "(0, inf)").means("The standard deviation per channel of these pixels."),
    "INPUT.SYNC_AUG": Key(True, needs=(GEOMETRY,)).means(
        "Flip, crop and erase the three modalities of a sample alike, so that they stay aligned; False draws for each "
        "modality separately, as DeMo does."
    ),
    "INPUT.MODALITY_DROPOUT": Key(0.0, "[0, 1)").means(
        "The probability that a modality of a training sample is made absent; at least one remains."
    ),
    "DATASETS.NAMES": Key("synthetic", tuple(DATASETS)).means("The data set."),
    "DATASETS.ROOT_DIR": Key("datasets").means(
        "The folder that holds the data set (RGBNT201/train_171/RGB/...), or to which the synthetic one is written; "
        "for a manifest, its CSV file."
    ),
    "DATASETS.PROTOCOL": Key("camera", ("camera", "scene"), MANIFEST).means(
        "Whether a query of a manifest ignores the images of its identity from the same camera or from the same scene."
    ),
    "DATASETS.VAL_IDS": Key(0, "[0, inf)").means(
        "How many training identities are held out as a validation set on which 'best' is chosen; with 0 it is chosen "
        "on the test set, as is common in the field."
    ),
    "SYNTHETIC.TRAIN_IDS": Key(96, "[1, inf)", SYNTHETIC).means("The number of training identities (RGBNT201: 171)."),
    "SYNTHETIC.TEST_IDS": Key(20, "[1, inf)", SYNTHETIC).means("The number of test identities (RGBNT201: 30)."),
    "SYNTHETIC.TRAIN_IMAGES": Key(768, "[1, inf)", SYNTHETIC).means("The number of training samples (RGBNT201: 3951)."),
    "SYNTHETIC.TEST_IMAGES": Key(240, "[1, inf)", SYNTHETIC).means("The number of test samples (RGBNT201: 836)."),
    "SYNTHETIC.SIZE": Key([256, 128], "[16, 4096]", SYNTHETIC).means(
        "The size of the JPEGs (height, width) in pixels."
    ),
    "SYNTHETIC.DIFFICULTY": Key(0.25, "[0, 1]", SYNTHETIC).means(
        "How often and how badly modalities are degraded, persons occluded, and cameras different; 0 is clean."
    ),
    "SYNTHETIC.OFF_CENTRE": Key(0.0, "[0, 1]", SYNTHETIC).means(
        "How far persons stand from the centre of the image: 0 near it, 1 anywhere between the left and the right edge."
    ),
    "SYNTHETIC.SEED": Key(0, "[0, inf)", SYNTHETIC).means("The seed of the synthetic data set."),
    "DATALOADER.NUM_WORKERS": Key(4, "[0, 256]").means(
        "The number of worker processes of the loader, and of the threads that decode JPEGs (at least one); 0 loads in "
        "the training process."
    ),
    "DATALOADER.SAMPLER": Key("softmax_triplet", ("softmax_triplet", "softmax")).means(
        "'softmax_triplet' makes batches of P identities with NUM_INSTANCE samples each, for both losses; 'softmax' "
        "shuffles the samples and uses no triplet loss."
    ),
    "DATALOADER.NUM_INSTANCE": Key(8, "[1, inf)", IDENTITIES).means(
        "K, the number of samples per identity in a batch, which must divide SOLVER.IMS_PER_BATCH."
    ),
    "DATALOADER.CACHE": Key("auto", ("auto", "off", "device")).means(
        "Decoded images: 'auto' writes a memory-mapped uint8 file to disk once, 'off' decodes into memory at every "
        "start, and 'device' does as 'auto' and copies the images to MODEL.DEVICE."
    ),
    "DATALOADER.CACHE_DIR": Key("", needs=STORE).means(
        "The folder of that file; '' stands for .decoded in ROOT_DIR, or beside a manifest."
    ),
}
