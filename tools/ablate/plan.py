"""Plan a sweep: name the variants of one experiment and validate each with every seed before anything runs."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from configs import get_cfg
from configs.loading import leaves
from utils.errors import UserError
from utils.files import atomic_write

PER_RUN = ("SOLVER.SEED", "OUTPUT_DIR")
"""The sweep sets these keys itself; they never count as a difference between variants."""
SWEEP = "sweep.json"
FOLDER_NAME = re.compile(r"[\w.,=+-]+")
NOT_IN_NAMES = re.compile(r"[^\w.+-]+")
GRID_VALUE = re.compile(r"(?:[^,\[(]|\[[^\]]*\]|\([^)]*\))+")
"""A value of a grid ends at the next comma outside brackets."""


@dataclass(frozen=True)
class Variant:
    """A Variant is one configuration to compare with others."""

    name: str
    config_file: str
    opts: tuple[str, ...]
    """Holds KEY, VALUE, KEY, VALUE, ... as on the command line of train_net.py, without PER_RUN."""
    config: Mapping[str, Any]
    """Holds every key by its dotted name, without PER_RUN."""


@dataclass(frozen=True)
class Run:
    """A Run trains a variant with one seed."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Return a name that is unique in the sweep."""
        return f"{self.variant.name}/seed{self.seed}"

    @property
    def argv(self) -> list[str]:
        """Return the arguments of train_net.py, without --resume."""
        per_run = ["SOLVER.SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)]
        return ["--config_file", self.variant.config_file, *self.variant.opts, *per_run]

    @property
    def config(self) -> dict[str, Any]:
        """Return every key by its dotted name, without OUTPUT_DIR, so that the folder of a sweep may be moved."""
        return {**self.variant.config, "SOLVER.SEED": self.seed}

    @property
    def max_epochs(self) -> int:
        """Return the number of epochs of a finished run."""
        return self.variant.config["SOLVER.MAX_EPOCHS"]


@dataclass(frozen=True)
class Sweep:
    """A Sweep trains every variant with every seed and compares the variants with one of them, the reference."""

    folder: Path
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reference: str
    starts: tuple[Mapping[str, Any], ...] = ()
    """Tells command, commit and machine of each call of tools.ablate that worked on the sweep."""

    @property
    def runs(self) -> list[Run]:
        """Return the runs ordered by seed, so that an unfinished sweep already has pairs to compare."""
        return [
            Run(variant, seed, self.folder / variant.name / f"seed{seed}")
            for seed in self.seeds
            for variant in self.variants
        ]

    def save(self) -> None:
        """Write sweep.json, from which --report_only restores the sweep."""
        content = {name: value for name, value in asdict(self).items() if name != "folder"}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / SWEEP) as file:
            file.write(json.dumps(content, indent=1) + "\n")


def load_sweep(folder: Path) -> Sweep:
    """Restore the sweep that was saved in `folder`.

    Raises:
        UserError: the folder holds no sweep.json.
    """
    path = folder / SWEEP
    if not path.is_file():
        raise UserError(f"There is no {path}, so {folder} holds no sweep. Give --output the folder of one.")
    content = json.loads(path.read_text(encoding="utf-8"))
    variants = tuple(Variant(**{**variant, "opts": tuple(variant["opts"])}) for variant in content["variants"])
    return Sweep(folder, variants, tuple(content["seeds"]), content["reference"], tuple(content["starts"]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys, except PER_RUN, whose values differ between two configurations, with both values."""
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if key not in PER_RUN and first.get(key) != second.get(key)
    }


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a list of seeds such as '1,2,3'.

    Raises:
        UserError: the text is not a list of distinct whole numbers >= 0.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise UserError(f"--seeds is {text!r}. Allowed: different whole numbers >= 0, such as 1,2,3.")
    return tuple(int(word) for word in words)


def grid_variants(grids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return every combination of the grids 'KEY=v1,v2' as {name: {key: value}}.

    Raises:
        UserError: a grid is malformed, or two grids name the same key.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        key, equals, text = grid.partition("=")
        values = [value.strip() for value in GRID_VALUE.findall(text)]
        if not (key and equals and values and all(values)):
            raise UserError(f"--grid is {grid!r}. Allowed: KEY=VALUE,VALUE,..., such as MODEL.SDTPS_BETA=0.1,0.25.")
        if key in axes:
            raise UserError(f"--grid names {key} twice. List all of its values in one: {key}=VALUE,VALUE,...")
        axes[key] = values
    labels = _short_labels([*axes])
    variants: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*axes.values()):
        words = (NOT_IN_NAMES.sub("_", value) for value in values)
        name = ",".join(f"{label}={word}" for label, word in zip(labels, words, strict=True))
        if name in variants:
            raise UserError(f"--grid has {name} twice. Give each value once.")
        variants[name] = dict(zip(axes, values, strict=True))
    return variants


def _short_labels(keys: Sequence[str]) -> list[str]:
    """Shorten keys by their section and by the words that all of them begin with, unless that makes two keys equal."""
    names = [key.rpartition(".")[2] for key in keys]
    if len(set(names)) < len(names):
        return list(keys)
    if len(names) == 1:
        return names
    words = [name.split("_") for name in names]
    columns = zip(*(name[:-1] for name in words), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return ["_".join(name[shared:]) for name in words]


def read_variants(path: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Read a YAML file of variants.

    Returns:
        The variants as {name: {key: value, 'config_file': path}}, and the name of the reference if the file has one.

    Raises:
        UserError: there is no such file, or it does not hold `variants: {NAME: {KEY: VALUE}}`.
    """
    if not path.is_file():
        raise UserError(f"There is no file of variants {path}. configs/variants.yml is one to start from.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    sections = content if isinstance(content, dict) else {}
    table, reference = sections.get("variants"), sections.get("reference")
    if sections.keys() - {"variants", "reference"} or not isinstance(table, dict) or not table:
        raise UserError(f"{path} must hold 'variants:', names with their keys, and may hold 'reference:', one of them.")
    variants = {}
    for name, keys in table.items():
        if not isinstance(keys, dict):
            raise UserError(f"{path}: the variant {name} is {keys!r}. Allowed: keys and values, or {{}}.")
        variants[str(name)] = flat = leaves(keys)
        if "config_file" in flat:
            flat["config_file"] = str(path.parent / str(flat["config_file"]))
    return variants, None if reference is None else str(reference)


def plan_sweep(
    folder: Path,
    table: Mapping[str, Mapping[str, Any]],
    *,
    config_file: str,
    opts: Sequence[str],
    seeds: Sequence[int],
    reference: str | None,
) -> Sweep:
    """Make a sweep in which every configuration is valid and no two variants are the same.

    Args:
        folder: the folder of the sweep.
        table: the keys of each variant; 'config_file' among them replaces `config_file`.
        opts: KEY, VALUE, ... that all variants share; the keys of a variant take precedence.
        reference: the variant that the others are compared with; None selects the variant that equals the experiment
            itself, or else the first one.

    Raises:
        UserError: the message names the faulty variant.
    """
    if len(opts) % 2:
        raise UserError(f"Overrides come in pairs KEY VALUE; got {len(opts)} words: {' '.join(opts)}.")
    shared = dict(zip(opts[::2], opts[1::2], strict=True))
    variants: list[Variant] = []
    for name, keys in table.items():
        variant = _make_variant(name, keys, config_file, shared, seeds)
        _check_comparable(variant, variants)
        variants.append(variant)
    names = [variant.name for variant in variants]
    if reference is None:
        experiment = leaves(get_cfg(config_file, opts))
        same = [variant.name for variant in variants if not differences(experiment, variant.config)]
        reference = (same or names)[0]
    if reference not in names:
        raise UserError(f"The reference is {reference!r}, which is no variant. Allowed: {', '.join(names)}.")
    return Sweep(folder, tuple(variants), tuple(seeds), reference)


def _make_variant(
    name: str, keys: Mapping[str, Any], config_file: str, shared: Mapping[str, str], seeds: Sequence[int]
) -> Variant:
    if not FOLDER_NAME.fullmatch(name):
        raise UserError(f"A variant is called {name!r}, which is to be a folder. Allowed: letters, digits and ._=,+-")
    values = {**shared, **{key: str(value) for key, value in keys.items() if key != "config_file"}}
    if fixed := values.keys() & {*PER_RUN}:
        raise UserError(f"{min(fixed)} is set by the sweep. Use --seeds for the seeds and --output for the folder.")
    file, opts = str(keys.get("config_file", config_file)), tuple(itertools.chain.from_iterable(values.items()))
    try:
        cfgs = [get_cfg(file, [*opts, "SOLVER.SEED", seed]) for seed in seeds]
    except UserError as error:
        raise UserError(f"Variant {name}: {error}") from error
    return Variant(name, file, opts, {key: value for key, value in leaves(cfgs[0]).items() if key not in PER_RUN})


def _check_comparable(variant: Variant, others: Sequence[Variant]) -> None:
    for other in others:
        if not differences(other.config, variant.config):
            raise UserError(
                f"The variants {other.name} and {variant.name} are the same configuration. Remove one of them."
            )
        ours, theirs = variant.config["DATASETS.NAMES"], other.config["DATASETS.NAMES"]
        if ours != theirs:
            raise UserError(
                f"The variant {variant.name} uses {ours} and {other.name} uses {theirs}: metrics on two data sets "
                "cannot be compared. Make two sweeps."
            )
