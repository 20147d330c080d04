"""What a sweep is: named variants of one experiment, each a few keys, times seeds; validated before anything runs."""

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

PER_RUN = ("SOLVER.SEED", "OUTPUT_DIR")
"""Keys that a sweep sets itself and that never count as a difference between variants."""
SWEEP = "sweep.json"
NAME = re.compile(r"[\w.,=+-]+")
NOT_IN_NAMES = re.compile(r"[^\w.+-]+")
VALUE = re.compile(r"(?:[^,\[(]|\[[^\]]*\]|\([^)]*\))+")
"""A value of a grid: up to the next comma outside brackets."""


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    config_file: str
    opts: tuple[str, ...]
    """KEY, VALUE, KEY, VALUE, ... as on the command line of train_net.py, without seed and folder."""
    config: Mapping[str, Any]
    """Every key by dotted name, without those of PER_RUN."""


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Short and unique in the sweep."""
        return f"{self.variant.name}/seed{self.seed}"

    @property
    def argv(self) -> list[str]:
        """The command line of train_net.py, but for --resume."""
        own = ["SOLVER.SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)]
        return ["--config_file", self.variant.config_file, *self.variant.opts, *own]

    @property
    def config(self) -> dict[str, Any]:
        """Every key by dotted name, as asked for; without OUTPUT_DIR, so that a sweep may be moved."""
        return {**self.variant.config, "SOLVER.SEED": self.seed}

    @property
    def max_epochs(self) -> int:
        """Length of the run."""
        return self.variant.config["SOLVER.MAX_EPOCHS"]


@dataclass(frozen=True)
class Sweep:
    """Variants x seeds, the first of which to compare with, and where they are."""

    folder: Path
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reference: str
    starts: tuple[Mapping[str, Any], ...] = ()
    """By call of the tool that worked on it: command, commit, machine."""

    @property
    def runs(self) -> list[Run]:
        """Seed by seed, so that a sweep that is half done has pairs to compare."""
        return [
            Run(variant, seed, self.folder / variant.name / f"seed{seed}")
            for seed in self.seeds
            for variant in self.variants
        ]

    def save(self) -> None:
        """Write sweep.json, from which the report is made."""
        content = {"reference": self.reference, "seeds": self.seeds, "starts": self.starts}
        content["variants"] = [asdict(variant) for variant in self.variants]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SWEEP).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_sweep(folder: Path) -> Sweep:
    """The sweep whose sweep.json is in `folder`.

    Raises:
        UserError: there is none.
    """
    path = folder / SWEEP
    if not path.is_file():
        raise UserError(f"There is no {path}, so {folder} holds no sweep. Give --output the folder of one.")
    content = json.loads(path.read_text(encoding="utf-8"))
    variants = tuple(Variant(**{**variant, "opts": tuple(variant["opts"])}) for variant in content["variants"])
    return Sweep(folder, variants, tuple(content["seeds"]), content["reference"], tuple(content["starts"]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two configurations differ, with both values; seed and folder aside."""
    return {
        key: (first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if key not in PER_RUN and first.get(key) != second.get(key)
    }


def parse_seeds(text: str) -> tuple[int, ...]:
    """'1,2,3' as numbers.

    Raises:
        UserError: not different whole numbers >= 0.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise UserError(f"--seeds is {text!r}. Allowed: different whole numbers >= 0, such as 1,2,3.")
    return tuple(int(word) for word in words)


def grid_variants(grids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every combination of 'KEY=v1,v2' as {name: {key: value}}.

    Raises:
        UserError: a malformed grid, or a key in two of them.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        key, equals, text = grid.partition("=")
        values = [value.strip() for value in VALUE.findall(text)]
        if not (key and equals and values and all(values)):
            raise UserError(f"--grid is {grid!r}. Allowed: KEY=VALUE,VALUE,..., such as MODEL.SDTPS_BETA=0.1,0.25.")
        if key in axes:
            raise UserError(f"--grid names {key} twice. List all of its values in one: {key}=VALUE,VALUE,...")
        axes[key] = values
    labels = _labels([*axes])
    variants: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*axes.values()):
        words = (NOT_IN_NAMES.sub("_", value) for value in values)
        name = ",".join(f"{label}={word}" for label, word in zip(labels, words, strict=True))
        if name in variants:
            raise UserError(f"--grid has {name} twice. Give each value once.")
        variants[name] = dict(zip(axes, values, strict=True))
    return variants


def _labels(keys: Sequence[str]) -> list[str]:
    """Short names of keys: without their sections and the words that all begin with; whole where that is ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    if len(set(last)) < len(last):
        return list(keys)
    words = [name.split("_") for name in last]
    columns = zip(*(name[:-1] for name in words), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns)) if len(keys) > 1 else 0
    return ["_".join(name[shared:]) for name in words]


def read_variants(path: Path) -> tuple[dict[str, dict[str, Any]], str | None]:
    """The variants of a YAML file, {name: {key: value, 'config_file': path}}, and the one to compare with.

    Raises:
        UserError: no such file, or it is not `reference: NAME` and `variants: {NAME: {KEY: VALUE}}`.
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
    """A sweep in which every variant with every seed is a valid configuration, and no two variants are the same.

    Args:
        table: keys of each variant by name; 'config_file' replaces `config_file`.
        opts: KEY, VALUE, ... that all variants share; a variant's own keys win.
        reference: what the others are compared with; None takes the variant that changes nothing, else the first.

    Raises:
        UserError: naming the variant that is at fault.
    """
    if len(opts) % 2:
        raise UserError(f"Overrides come in pairs KEY VALUE; got {len(opts)} words: {' '.join(opts)}.")
    shared = dict(zip(opts[::2], opts[1::2], strict=True))
    variants = []
    for name, keys in table.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"A variant is called {name!r}, which is to be a folder. Allowed: letters, digits and ._=,+-"
            )
        own = {key: str(value) for key, value in keys.items() if key != "config_file"}
        if fixed := {*own, *shared} & {*PER_RUN}:
            raise UserError(f"{min(fixed)} is set by the sweep. Use --seeds for the seeds and --output for the folder.")
        pairs = tuple(word for pair in {**shared, **own}.items() for word in pair)
        file = str(keys.get("config_file", config_file))
        variant = Variant(name, file, pairs, _validated(name, file, pairs, seeds))
        for other in variants:
            if not differences(other.config, variant.config):
                raise UserError(f"The variants {other.name} and {name} are the same configuration. Remove one of them.")
        if variants and variant.config["DATASETS.NAMES"] != variants[0].config["DATASETS.NAMES"]:
            raise UserError(
                f"The variant {name} is on {variant.config['DATASETS.NAMES']} and {variants[0].name} on "
                f"{variants[0].config['DATASETS.NAMES']}: figures of two data sets cannot be compared. Make two sweeps."
            )
        variants.append(variant)
    names = [variant.name for variant in variants]
    if reference is None:
        base = leaves(get_cfg(config_file, opts))
        same = [variant.name for variant in variants if not differences(base, variant.config)]
        reference = (same or names)[0]
    if reference not in names:
        raise UserError(f"The reference is {reference!r}, which is no variant. Allowed: {', '.join(names)}.")
    return Sweep(folder, tuple(variants), tuple(seeds), reference)


def _validated(name: str, config_file: str, opts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The configuration of a variant, valid with every seed."""
    for seed in seeds:
        try:
            cfg = get_cfg(config_file, [*opts, "SOLVER.SEED", seed])
        except UserError as error:
            raise UserError(f"Variant {name}: {error}") from error
    return {key: value for key, value in leaves(cfg).items() if key not in PER_RUN}
