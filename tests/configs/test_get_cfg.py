"""Files and overrides to a frozen, typed, fully used configuration."""

import warnings
from pathlib import Path

import pytest

from configs import get_cfg
from configs.document import PAGE, render
from configs.keys import DEFAULTS, KEYS
from configs.loading import config_changes, leaves
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
YAMLS = sorted((ROOT / "configs").glob("*/*.yml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_yaml_loads_and_writes_to_its_own_folder(path):
    cfg = get_cfg(path)
    assert cfg.is_frozen()
    assert f"output/{path.parent.name}/{path.stem}" == cfg.OUTPUT_DIR
    assert f"--config_file configs/{path.parent.name}/{path.name}" in path.read_text()


def test_every_key_is_documented():
    for name, key in KEYS.items():
        assert key.meaning.endswith("."), name
    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m configs.document"


def test_the_users_own_yaml(tmp_path):
    path = tmp_path / "user.yml"
    path.write_text(
        "MODEL:\n  USE_SDTPS: True\n  SDTPS_SPARSE_RATIO: 0.5   # keep 50 %\n  SDTPS_AGGR_RATIO: 0.4\n"
        "  SDTPS_BETA: 0.25\n  SDTPS_USE_GUMBEL: False\n"
    )
    assert get_cfg(path).MODEL.USE_SDTPS is True


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("MODEL.DIRECT", 0, False),
        ("MODEL.IF_LABELSMOOTH", "off", False),
        ("TEST.FEAT_NORM", "yes", True),
        ("DATASETS.NAMES", "('RGBNT201')", "RGBNT201"),
        ("SOLVER.BASE_LR", "5e-4", 5e-4),
        ("SOLVER.BASE_LR", 1, 1.0),
        ("INPUT.PIXEL_MEAN", "(0.4, 0.4, 0.5)", [0.4, 0.4, 0.5]),
        ("OUTPUT_DIR", 7, "7"),
        ("DATASETS.NAMES", "rgbnt201", "RGBNT201"),
        ("TEST.MISS", "RT", "rt"),
        ("MODEL.SDTPS_BLOCK", "0", 0),
    ],
)
def test_spellings_of_the_original_are_understood(key, value, expected):
    found = leaves(get_cfg(None, [key, value]))[key]
    assert found == expected and type(found) is type(expected)


def test_old_names_and_keys_that_were_never_read(tmp_path):
    assert get_cfg(None, ["SOLVER.WARMUP_ITERS", 3]).SOLVER.WARMUP_EPOCHS == 3
    with pytest.warns(UserWarning, match=r"SOLVER\.GAMMA has no effect"):
        get_cfg(None, ["SOLVER.GAMMA", 0.1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_cfg(None, ["MODEL.IF_WITH_CENTER", "no"])
    with pytest.raises(UserError, match="center loss"):
        get_cfg(None, ["MODEL.IF_WITH_CENTER", "yes"])


def test_base_files_chain_and_may_not_loop(tmp_path):
    (tmp_path / "a.yml").write_text("SOLVER:\n  SEED: 1\n  MAX_EPOCHS: 60\n")
    (tmp_path / "b.yml").write_text("_BASE_: a.yml\nSOLVER:\n  SEED: 2\n")
    (tmp_path / "c.yml").write_text("_BASE_: c.yml\n")
    cfg = get_cfg(tmp_path / "b.yml")
    assert (cfg.SOLVER.SEED, cfg.SOLVER.MAX_EPOCHS) == (2, 60)
    with pytest.raises(UserError, match="itself"):
        get_cfg(tmp_path / "c.yml")


FROZEN = ["MODEL.FROZEN", True]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.SDTPS_BTA", 1], r"no configuration key MODEL\.SDTPS_BTA\. Did you mean MODEL\.SDTPS_BETA"),
        (["MODEL", 1], "no configuration key MODEL"),
        (["SOLVER.SEED"], "pairs"),
        (["SOLVER.SEED", "x"], r"SOLVER\.SEED is 'x'.*whole number"),
        (["SOLVER.SEED", 1.5], "whole number"),
        (["SOLVER.BASE_LR", "nan"], "finite number"),
        (["SOLVER.BASE_LR", True], "finite number"),
        (["MODEL.DIRECT", "maybe"], "not a switch"),
        (["INPUT.SIZE_TRAIN", "256"], "list of 2"),
        (["DATASETS.NAMES", None], "not text"),
        (["SOLVER.OPTIMIZER_NAME", "Lion"], "'Adam', 'AdamW', 'SGD'"),
        (["MODEL.SIE_COE", 2], "SIE_CAMERA is False"),
        (["MODEL.ATM", True], "MODEL.HDM is False"),
        (["DATASETS.NAMES", "Market1501"], "'Market1501'.*'RGBNT201'.*'manifest'.*'synthetic'"),
        (
            [*FROZEN, "MODEL.SIE_CAMERA", True, "SOLVER.LAYER_DECAY", 0.7],
            "LAYER_DECAY is 0.7.*camera embedding, at BASE_LR",
        ),
        ([*FROZEN, "SOLVER.BACKBONE_LR", 0.1], "BACKBONE_LR is 0.1.*FROZEN is True"),
        ([*FROZEN, "MODEL.ID_LOSS_WEIGHT", 0], "nothing would be trained"),
        (["INPUT.PROB", 0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0, "INPUT.SYNC_AUG", False], "no random flip"),
        (["DATASETS.NAMES", "RGBNT201", "SYNTHETIC.SEED", 3], "not 'synthetic'"),
        (["DATALOADER.SAMPLER", "softmax", "SOLVER.MARGIN", 0.5], "no triplet loss"),
        (["MODEL.NO_MARGIN", True, "SOLVER.MARGIN", 0.5], "NO_MARGIN is True"),
        (["SOLVER.MOMENTUM", 0.5], "only SGD"),
        (["DATALOADER.NUM_INSTANCE", 7], "does not divide.*such as 70"),
        (["SOLVER.IMS_PER_BATCH", 8], "two identities"),
        (["SOLVER.LR_NOISE", 1e-9], r"LR_NOISE is 1e-09.*0\.001 to below 1"),
        (["SOLVER.ACCUMULATE", 65], "more parts than the 64 images"),
        (["SOLVER.MAX_EPOCHS", 5], "WARMUP_EPOCHS is 10 of SOLVER.MAX_EPOCHS 5"),
        (["INPUT.SIZE_TEST", [128, 64]], "must be equal"),
        (["TEST.FEAT", "sdtps"], "USE_SDTPS is False"),
        (["MODEL.DEVICE", "tpu"], "'auto', 'cpu', 'cuda', 'cuda:N'"),
    ],
)
def test_bad_input_is_refused_with_key_value_and_remedy(opts, message):
    with pytest.raises(UserError, match=message):
        get_cfg(None, opts)


@pytest.mark.parametrize(
    "opts",
    [
        ["MODEL.GLOBAL_LOCAL", True, "SOLVER.BIAS_LR_FACTOR", 1],
        ["INPUT.PROB", 0.5, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0, "INPUT.SYNC_AUG", False],
    ],
)
def test_a_key_that_acts_by_another_way_is_taken(opts):
    get_cfg(None, opts)


@pytest.mark.parametrize("key", ["SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS"])
def test_a_rate_of_biases_is_warned_of_where_there_are_none(key):
    with pytest.warns(UserWarning, match=f"{key} is 0.5.*learn no bias"):
        get_cfg(None, [key, 0.5])


def test_a_rate_that_is_never_reached_is_warned_of():
    with pytest.warns(UserWarning, match=r"MIN_LR_FACTOR is 0\.1.*no epoch is left"):
        get_cfg(None, ["SOLVER.MIN_LR_FACTOR", 0.1, "SOLVER.MAX_EPOCHS", 11])


def test_keys_of_a_longer_yaml_are_warned_of_in_a_short_trial():
    trial = ["SOLVER.WARMUP_START", 0.01, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.MAX_EPOCHS", 1]
    with pytest.warns(UserWarning, match=r"WARMUP_START is 0\.01.*or leave SOLVER\.WARMUP_START at its default, 0\.1"):
        get_cfg(None, trial)
    with pytest.warns(UserWarning, match="CACHE_DIR is 'fast'.*CACHE is 'off'"):
        get_cfg(None, ["DATALOADER.CACHE_DIR", "fast", "DATALOADER.CACHE", "off"])


def test_the_last_setting_wins_under_either_of_its_names(tmp_path):
    """The base writes our name, the file the original's, the command line ours again."""
    (tmp_path / "base.yml").write_text("SOLVER: {WARMUP_EPOCHS: 7}")
    (tmp_path / "own.yml").write_text("_BASE_: base.yml\nSOLVER: {WARMUP_ITERS: 5}")
    assert get_cfg(tmp_path / "own.yml").SOLVER.WARMUP_EPOCHS == 5
    assert get_cfg(tmp_path / "own.yml", ["SOLVER.WARMUP_EPOCHS", 3]).SOLVER.WARMUP_EPOCHS == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL: [", "not a YAML file"),
        ("- 1", "must hold keys and values"),
        ("MODEL: 3", "MODEL is a section"),
        ("MODEL:\n  DIRECT:\n    X: 1", r"no configuration key MODEL\.DIRECT\.X"),
        ("_BASE_: 3", "_BASE_ is 3"),
        ("_BASE_: nowhere.yml", "no configuration file"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    (tmp_path / "bad.yml").write_text(content)
    with pytest.raises(UserError, match=message):
        get_cfg(tmp_path / "bad.yml")


def test_all_problems_are_reported_together(tmp_path):
    path = tmp_path / "bad.yml"
    path.write_text(
        "MODEL:\n  SDTPS_BTA: 1\n  SIE_COE: 2\nSOLVER:\n  SEED: x\n  MAX_EPOCHS: 0\n  IMS_PER_BATCH: 12\n"
        "DATALOADER:\n  SAMPLER: random\nMODELS: 1\n"
    )
    with pytest.raises(UserError) as caught:
        get_cfg(path, ["INPUT.SIZE_TEST", "[128, 64]"])
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("The configuration has 7 problems: (1) There is no configuration key MODEL.SDTPS_BTA.")
    for part in ("SOLVER.SEED is 'x'", "MAX_EPOCHS is 0. A", "SAMPLER is 'random'", "key MODELS", "SIE_COE is 2.0"):
        assert message.count(part) == 1
    assert "(7) INPUT.SIZE_TRAIN is [256, 128] and INPUT.SIZE_TEST is [128, 64]." in message


def test_a_refused_key_breaks_no_other_rule():
    """WARMUP_EPOCHS of 10 is compared with MAX_EPOCHS, and the batch with the sampler, only if these are sound."""
    for opts in (["SOLVER.MAX_EPOCHS", 0], ["DATALOADER.SAMPLER", "random", "SOLVER.IMS_PER_BATCH", 12]):
        with pytest.raises(UserError, match=f"^{opts[0]} is .*Allowed: [^:]*$"):
            get_cfg(None, opts)


def test_many_problems_are_cut_short():
    with pytest.raises(UserError, match=r"has 30 problems: \(1\).*\(20\).*There are 10 more\.$"):
        get_cfg(None, [word for i in range(30) for word in (f"X.Y{i}", 1)])


def test_changes_since_a_dump():
    """A key that is newer than the dump had its default."""
    former = get_cfg(None, ["SOLVER.SEED", 3]).dump().replace("  SDTPS_SCORE: sdtps\n", "")
    assert config_changes(former, get_cfg(None, ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_SCORE", "centre"])) == [
        "MODEL.USE_SDTPS was False, is True",
        "MODEL.SDTPS_SCORE was 'sdtps', is 'centre'",
        "SOLVER.SEED was 3, is 1111",
    ]


def test_a_default_is_no_setting():
    """Writing out a default under a switched-off parent is harmless; only a change is refused."""
    get_cfg(None, ["MODEL.SDTPS_BETA", 0.25])


def test_defaults_are_not_shared_between_configurations():
    get_cfg(None, ["INPUT.PIXEL_MEAN", [0, 0, 0]])
    assert DEFAULTS["INPUT.PIXEL_MEAN"] == get_cfg().INPUT.PIXEL_MEAN == [0.5, 0.5, 0.5]
