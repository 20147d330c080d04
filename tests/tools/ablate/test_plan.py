"""Test how grids and YAML files become runs: names, keys, and what is refused before anything starts."""

from pathlib import Path

import pytest

from configs import get_cfg
from configs.loading import leaves
from tools.ablate.plan import (
    differences,
    grid_variants,
    load_sweep,
    parse_seeds,
    plan_sweep,
    read_variants,
)
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
FULL = str(ROOT / "configs" / "Synthetic" / "DeMo_SDTPS.yml")


def plan(table, tmp_path, *, config_file=FULL, opts=(), seeds=(1, 2), reference=None):
    return plan_sweep(tmp_path, table, config_file=config_file, opts=opts, seeds=seeds, reference=reference)


def test_a_grid_is_every_combination():
    variants = grid_variants(["MODEL.SDTPS_BETA=0.1, 0.25", "INPUT.SIZE_TRAIN=[128, 64],[256,128]"])
    assert variants["SDTPS_BETA=0.1,SIZE_TRAIN=_128_64_"] == {
        "MODEL.SDTPS_BETA": "0.1",
        "INPUT.SIZE_TRAIN": "[128, 64]",
    }
    assert len(variants) == 4


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["MODEL.SDTPS_BETA"], "SDTPS_BETA=1"),
        (["MODEL.SDTPS_BETA", "MODEL.SDTPS_SPARSE_RATIO"], "BETA=1,SPARSE_RATIO=1"),
        (["MODEL.SDTPS_BETA", "SOLVER.BASE_LR"], "SDTPS_BETA=1,BASE_LR=1"),
        (["SOLVER.SEEN", "SOLVER.SEER"], "SEEN=1,SEER=1"),
        (["SOLVER.IMS_PER_BATCH", "TEST.IMS_PER_BATCH"], "SOLVER.IMS_PER_BATCH=1,TEST.IMS_PER_BATCH=1"),
    ],
)
def test_names_of_a_grid_are_short_and_tell_its_keys_apart(keys, name):
    assert list(grid_variants([f"{key}=1" for key in keys])) == [name]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["MODEL.SDTPS_BETA"], "--grid is 'MODEL.SDTPS_BETA'"),
        (["MODEL.SDTPS_BETA="], "Allowed: KEY=VALUE"),
        (["A.B=1", "A.B=2"], "names A.B twice"),
        (["A.B=1,1"], "has B=1 twice"),
    ],
)
def test_malformed_grids(grids, message):
    with pytest.raises(UserError, match=message):
        grid_variants(grids)


def test_runs_go_seed_by_seed_and_name_their_folders(tmp_path):
    sweep = plan(grid_variants(["MODEL.SDTPS_BETA=0.1,0.25"]), tmp_path, opts=["SOLVER.MAX_EPOCHS", "4"])
    assert [run.name for run in sweep.runs] == [
        "SDTPS_BETA=0.1/seed1", "SDTPS_BETA=0.25/seed1", "SDTPS_BETA=0.1/seed2", "SDTPS_BETA=0.25/seed2",
    ]  # fmt: skip
    run = sweep.runs[2]
    cfg = get_cfg(run.argv[1], run.argv[2:])
    assert (cfg.MODEL.SDTPS_BETA, cfg.SOLVER.SEED, cfg.SOLVER.MAX_EPOCHS) == (0.1, 2, 4) and run.max_epochs == 4
    assert Path(cfg.OUTPUT_DIR) == tmp_path / "SDTPS_BETA=0.1" / "seed2"
    assert not differences(leaves(cfg), run.config)
    assert sweep.reference == "SDTPS_BETA=0.25", "the value that the experiment has"
    sweep.save()
    assert load_sweep(tmp_path) == sweep


@pytest.mark.parametrize("data_set", ["Synthetic", "RGBNT201"])
def test_the_variants_of_the_repository_are_its_experiments(tmp_path, data_set):
    table, reference = read_variants(ROOT / "configs" / "variants.yml")
    sweep = plan(table, tmp_path, config_file=str(ROOT / "configs" / data_set / "Baseline.yml"), reference=reference)
    files = {
        "baseline": "Baseline", "full": "DeMo_SDTPS", "full_gumbel": "DeMo_SDTPS_Gumbel",
        "opencode": "SDTPS_opencode", "paper": "SDTPS_paper",
    }  # fmt: skip
    assert sweep.reference == "baseline" and {variant.name for variant in sweep.variants} == files.keys()
    for variant in sweep.variants:
        path = ROOT / "configs" / data_set / f"{files[variant.name]}.yml"
        if path.exists():
            assert not differences(leaves(get_cfg(path)), variant.config)
    changes = differences(sweep.variants[0].config, {v.name: v for v in sweep.variants}["full_gumbel"].config)
    assert changes == {"MODEL.USE_SDTPS": (False, True), "MODEL.SDTPS_USE_GUMBEL": (False, True)}


def test_a_variant_may_have_an_experiment_of_its_own_beside_the_file(tmp_path):
    (tmp_path / "own.yml").write_text(f"_BASE_: {FULL}\nMODEL: {{SDTPS_BETA: 0.1}}\n")
    (tmp_path / "v.yml").write_text("variants: {a: {}, b: {config_file: own.yml, MODEL.SDTPS_SPARSE_RATIO: 0.25}}")
    sweep = plan(read_variants(tmp_path / "v.yml")[0], tmp_path)
    assert differences(*(variant.config for variant in sweep.variants)) == {
        "MODEL.SDTPS_BETA": (0.25, 0.1),
        "MODEL.SDTPS_SPARSE_RATIO": (0.5, 0.25),
    }


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ({"a": {}, "b": {"MODEL.SDTPS_BETA": 0.9}}, {}, "Variant b: MODEL.SDTPS_BETA is 0.9"),
        ({"a": {"MODEL.USE_SDTPS": False, "MODEL.SDTPS_BETA": 0.1}}, {}, "Variant a: .*would have no effect"),
        ({"a": {"MODEL.SDTPS_BETTA": 0.1}}, {}, "Variant a: .*Did you mean MODEL.SDTPS_BETA"),
        ({"a": {}, "b": {"MODEL.SDTPS_BETA": 0.25}}, {}, "a and b are the same configuration"),
        ({"a": {"SOLVER.SEED": 3}}, {}, "SOLVER.SEED is set by the sweep"),
        ({"a": {}}, {"opts": ["OUTPUT_DIR", "x"]}, "OUTPUT_DIR is set by the sweep"),
        ({"a": {}}, {"opts": ["MODEL.SDTPS_BETA"]}, "come in pairs"),
        ({"a/b": {}}, {}, "'a/b', which is to be a folder"),
        ({"a": {}}, {"reference": "c"}, "The reference is 'c', which is no variant. Allowed: a"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(tmp_path, table, arguments, message):
    with pytest.raises(UserError, match=message):
        plan(table, tmp_path, **arguments)


@pytest.mark.parametrize("text", ["", "1,1", "1;2", "-1", "a"])
def test_seeds_are_different_numbers(text):
    assert parse_seeds("3,1") == (3, 1)
    with pytest.raises(UserError, match="--seeds is"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: []", "must hold 'variants:'"),
        ("variants: {a: 3}", "the variant a is 3"),
        ("a: {}", "must hold 'variants:'"),
        ("variants: {a: {}}\nreferense: a", "must hold 'variants:'"),
        ("a: [", "is not a YAML file"),
    ],
)
def test_malformed_files_of_variants(tmp_path, text, message):
    (tmp_path / "v.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_variants(tmp_path / "v.yml")
    with pytest.raises(UserError, match="no file of variants"):
        read_variants(tmp_path / "none.yml")
