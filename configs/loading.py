"""From YAML file and KEY VALUE pairs to a frozen, validated configuration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from configs.compat import NEVER_READ, ONLY_OFF, RENAMED, coerce, is_off, shown, unknown_key
from configs.defaults import _C
from configs.validate import validate
from utils.errors import UserError

BASE_KEY = "_BASE_"
"""A YAML may name another one, relative to itself, whose keys it starts from."""
MAX_VALUES = 10_000
"""Values that a YAML may hold; the framework has about a hundred keys."""


def get_cfg(config_file: str | Path | None = None, opts: Sequence[Any] = ()) -> CfgNode:
    """The configuration of an experiment: defaults, then `config_file`, then `opts` (KEY, VALUE, KEY, VALUE, ...).

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, an illegal value, or a set key that
            could have no effect.
    """
    cfg = _C.clone()
    settings = _read_yaml(Path(config_file)) if config_file else {}
    if len(opts) % 2:
        raise UserError(f"Overrides come in pairs KEY VALUE; got {len(opts)} words: {shown(list(opts))}.")
    settings.update(zip(map(_present_name, opts[::2]), opts[1::2], strict=True))

    known = leaves(cfg)
    for name, value in settings.items():
        if name in known:
            _set(cfg, name, coerce(name, value, known[name]))
        elif name in ONLY_OFF:
            if not is_off(value):
                raise UserError(
                    f"{name} is {shown(value)}, but {ONLY_OFF[name]} is not part of this framework. Remove the key."
                )
        elif name in NEVER_READ:
            remedy = f"; {NEVER_READ[name]}" if NEVER_READ[name] else ""
            warnings.warn(f"{name} has no effect, in the original code as here{remedy}.", stacklevel=2)
        else:
            raise unknown_key(name, [*known, *RENAMED])
    validate(cfg, known)
    cfg.freeze()
    return cfg


def leaves(node: Mapping, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested mapping by dotted key: {'MODEL.DIRECT': True, ...}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _present_name(key: Any) -> str:
    """A key under the name it has here: what is set later under either name then wins."""
    return RENAMED.get(str(key), str(key))


def _set(cfg: CfgNode, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for name in parents:
        cfg = cfg[name]
    cfg[leaf] = value


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: PyYAML lets the last win, and a second `MODEL:` would drop the first whole."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, but strict."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value} stands twice{key.start_mark}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _is_small(content: Any) -> bool:
    """Whether at most MAX_VALUES are reached; a few aliases can name each other a billion times, or for ever."""
    reached, waiting = 0, [content]
    while waiting and reached <= MAX_VALUES:
        value = waiting.pop()
        reached += 1
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
    return reached <= MAX_VALUES


def _read_yaml(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The leaves of a YAML file by dotted key, those of its `_BASE_` first."""
    if not path.is_file():
        raise UserError(
            f"There is no configuration file {path}. Those that come with the framework are under configs/."
        )
    if path.resolve() in children:
        raise UserError(f"{path} names itself as its own {BASE_KEY}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except Exception as error:  # PyYAML lets through what int(), date() and deep nesting raise on odd values
        reason = " ".join((str(error) or type(error).__name__).split())[:400]
        raise UserError(f"{path} is not a YAML file: {reason}") from error
    content = {} if content is None else content
    if not _is_small(content):
        raise UserError(f"{path} holds more than {MAX_VALUES} values when its aliases (*name) are followed.")
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values such as 'MODEL:', but holds {shown(content)}.")
    base = content.pop(BASE_KEY, None)
    flat = {_present_name(key): value for key, value in leaves(content).items()}
    for key in flat:
        if any(name.startswith(f"{key}.") for name in leaves(_C)):
            raise UserError(f"{path}: {key} is a section and holds keys; got {shown(flat[key])}.")
    if base is None:
        return flat
    if not isinstance(base, str) or not base.isprintable():
        raise UserError(
            f"{path}: {BASE_KEY} is {shown(base)}. Allowed: the path of another YAML file, relative to this one."
        )
    return {**_read_yaml(path.parent / base, (*children, path.resolve())), **flat}


def config_changes(former: str, cfg: CfgNode) -> list[str]:
    """What differs between a dumped configuration and `cfg`: 'KEY was A, is B'."""
    before, now = leaves(yaml.safe_load(former)), leaves(cfg)
    return [f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in now if before.get(key) != now[key]]
