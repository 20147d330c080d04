"""Generated configurations, malformed in every way, are valid or refused in one paragraph, and none hangs.

The examples are a function of the code below (derandomize, no database), so a run in CI repeats here.
"""

import tempfile
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from configs import get_cfg
from configs.compat import NEVER_READ, RENAMED
from configs.keys import DEFAULTS, KEYS
from configs.loading import leaves
from data.build import build_data, build_train_loader
from engine.build import build_evaluator
from engine.precision import resolve_device
from modeling import build_loss, build_model
from solver import build_optimizer, build_schedule
from tests.helpers.trees import write_rgbnt201
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
NAMES = [*KEYS, *RENAMED, *NEVER_READ]
CHOICES = {name: key.allowed for name, key in KEYS.items() if isinstance(key.allowed, tuple)}
RANGES = {name: key.allowed for name, key in KEYS.items() if isinstance(key.allowed, str)}
SECTIONS = sorted({key.split(".")[0] for key in DEFAULTS if "." in key})
YAMLS = [path.read_text() for path in sorted((ROOT / "configs").glob("*/*.yml"))]
HOSTILE = [
    *("", "null", "~", "yes", "nan", ".inf", "-.inf", "1e400", "-1", "0", "1e-320", "0x" + "f" * 5000, "9" * 5000),
    *(
        "[",
        "]",
        "{",
        "{}",
        "[]",
        "{[]: 1}",
        "(" * 300,
        "-" * 9999 + "1",
        "lambda: 0",
        "__import__('os')",
        "...",
        "b'x'",
    ),
    *("2020-99-99", "!!bool x", "!!timestamp x", "!!python/object/apply:os.getcwd []", "&a [*a]", "*nowhere", "<<: 1"),
    *("\0", "a\nb", "\ud800", "²", "🙂" * 50, "a" * 5000, "../..", "/dev/null", "cuda:999", "'\\d'", "%s %n {x}"),
]
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


def carefully(max_examples):
    """Make the examples repeatable, and let none hang: the deadline is generous only for a busy machine."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=20),
        suppress_health_check=list(HealthCheck),
    )


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(HOSTILE),
    st.dates(),
    st.binary(max_size=5),
    st.sampled_from([choice for choices in CHOICES.values() for choice in choices]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
keys = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map(str.lower),
    st.tuples(st.sampled_from(NAMES), st.text(max_size=3)).map("".join),
    st.sampled_from([*SECTIONS, "_BASE_", "", ".", "MODEL.", "MODEL.DIRECT.X"]),
    st.text(max_size=12),
)


@st.composite
def torn_yamls(draw):
    """Draw a YAML of the framework with pieces cut out, doubled, or replaced by something hostile."""
    text = draw(st.sampled_from(YAMLS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        filling = draw(
            st.one_of(st.just(""), st.just(2 * text[start:end]), st.sampled_from(HOSTILE), st.text(max_size=5))
        )
        text = text[:start] + filling + text[end:]
    return text


def plausible(key):
    """Draw a value that is of the key's type, and often within its bounds."""
    default = DEFAULTS[key]
    if isinstance(default, list):
        return st.lists(plausible_number(key, default[0]), min_size=len(default), max_size=len(default))
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, str):
        return st.sampled_from([*CHOICES.get(key, ()), default])
    return plausible_number(key, default)


def plausible_number(key, default):
    low = float(RANGES.get(key, "[0, inf)")[1:-1].split(",")[0])
    if isinstance(default, int):
        return st.integers(int(low), int(low) + 40)
    return st.one_of(st.floats(0, 1), st.floats(low, low + 2, allow_nan=False))


def read(content=None, opts=()):
    """Return the configuration, or None where it is refused; anything else that is raised is a defect."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys that the original never reads are accepted with a warning
        path = Path(folder) / "generated.yml"
        if content is not None:
            path.write_bytes(content)
        try:
            cfg = get_cfg(path if content is not None else None, opts)
        except UserError as error:
            message = str(error)
            assert message and len(message.splitlines()) == 1 and len(message) < 6000, message[:300]
            return None
    assert cfg.is_frozen() and leaves(cfg).keys() == DEFAULTS.keys()
    assert all(type(value) is type(DEFAULTS[key]) for key, value in leaves(cfg).items())
    assert leaves(yaml.safe_load(cfg.dump())) == leaves(cfg), "what config.yaml and checkpoints hold reads back"
    return cfg


@carefully(100)
@given(torn_yamls())
def test_torn_yamls_are_valid_or_refused(text):
    read(text.encode("utf-8", "surrogatepass"))


@carefully(60)
@given(st.dictionaries(st.one_of(keys, st.sampled_from(SECTIONS)), values, max_size=4))
def test_yamls_of_odd_values_are_valid_or_refused(content):
    try:
        text = yaml.safe_dump(content)
    except (yaml.YAMLError, ValueError):  # surrogates, and numbers too long to write
        assume(False)
    read(text.encode("utf-8", "surrogatepass"))


@carefully(100)
@given(st.lists(st.tuples(keys, st.one_of(scalars, values)), min_size=1, max_size=4), st.booleans())
def test_odd_overrides_are_valid_or_refused(pairs, one_more):
    opts = [word for pair in pairs for word in pair]
    read(opts=[*opts, "SOLVER.SEED"] if one_more else opts)


@carefully(40)
@given(st.binary(max_size=60))
def test_any_bytes_are_valid_or_refused(content):
    read(content)


@pytest.mark.parametrize(
    "text", [LAUGHS, "a: &x {b: *x}", "a: &x {<<: *x, b: 1}", "[" * 5000, "MODEL: {}\nMODEL: {}", "\tx"]
)
def test_known_traps_are_refused(text):
    assert read(text.encode()) is None


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: value[:8].encode("unicode_escape").decode())
def test_hostile_values_of_every_key_are_valid_or_refused(value):
    for key in DEFAULTS:
        read(opts=[key, value])


# ------------------------------------------------------------------------------- what is valid works or is refused

BUILDABLE = [
    key
    for key in DEFAULTS
    if key.startswith(("MODEL.", "INPUT.", "DATALOADER.", "SOLVER.", "TEST."))
    and key not in ("MODEL.DEVICE", "MODEL.TRANSFORMER_TYPE", "MODEL.PRETRAIN_PATH_T", "DATALOADER.CACHE_DIR")
    and key not in ("TEST.WEIGHT", "SOLVER.COMPILE")
] + ["DATASETS.VAL_IDS"]  # fmt: skip


@st.composite
def plausible_overrides(draw):
    chosen = draw(st.lists(st.sampled_from(BUILDABLE), min_size=1, max_size=5, unique=True))
    return {key: draw(plausible(key)) for key in chosen}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = write_rgbnt201(tmp_path_factory.mktemp("set"), train_ids=4, test_ids=2, images_per_id=2)
    return {
        "MODEL.TRANSFORMER_TYPE": "ViT-Test", "MODEL.DEVICE": "cpu", "MODEL.USE_SDTPS": True,
        "INPUT.SIZE_TRAIN": [64, 32], "INPUT.SIZE_TEST": [64, 32], "MODEL.SDTPS_AGGR_RATIO": 0.75,
        "DATASETS.NAMES": "RGBNT201", "DATASETS.ROOT_DIR": str(root),
        "DATALOADER.NUM_INSTANCE": 2, "SOLVER.IMS_PER_BATCH": 4,
    }  # fmt: skip


def build_all(cfg):
    """Build all that a run builds before its first step."""
    device = resolve_device(cfg.MODEL.DEVICE)
    data = build_data(cfg)
    model = build_model(cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras)
    build_evaluator(cfg, data.test, model, device)
    build_train_loader(cfg, data, device)
    build_schedule(cfg, build_optimizer(cfg, model)).set_epoch(cfg.SOLVER.MAX_EPOCHS - 1)
    build_loss(cfg)


@pytest.mark.slow
def test_what_is_valid_can_be_built_or_is_refused(base):
    """Among 120 sets of plausible overrides every outcome must occur, or this tests nothing."""
    outcomes = []

    @carefully(120)
    @given(plausible_overrides())
    def check(overrides):
        cfg = read(opts=[word for pair in (base | overrides).items() for word in pair])
        if cfg is None:
            outcomes.append("refused on reading")
            return
        try:
            build_all(cfg)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            outcomes.append("refused on building")
        else:
            outcomes.append("built")

    check()
    counts = Counter(outcomes)
    assert counts["built"] >= 20 and counts["refused on building"] >= 2 and counts["refused on reading"] >= 20, counts
