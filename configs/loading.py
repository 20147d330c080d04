"""Read a YAML file and KEY VALUE pairs into a frozen, validated configuration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from configs.compat import RENAMED, read_foreign, shown
from configs.keys import DEFAULTS, KEYS
from configs.rules import check
from configs.schema import make_node
from utils.errors import UserError

BASE_KEY = "_BASE_"
"""The key under which a YAML file names another one, relative to itself, from whose keys it starts."""
MAX_VALUES = 10_000
"""The largest number of values in a YAML file; the framework has about a hundred keys."""
MAX_PROBLEMS = 20
"""The largest number of problems that one error lists."""


def get_cfg(config_file: str | Path | None = None, opts: Sequence[Any] = ()) -> CfgNode:
    """Read the configuration of an experiment: defaults, `config_file`, then `opts` (KEY, VALUE, KEY, VALUE, ...).

    Raises:
        UserError: a file is missing or malformed, or keys are unknown, of the wrong type, out of range, without any
            effect, or in conflict with each other; all the problems of the keys are reported together.
    """
    settings = _read_yaml(Path(config_file)) if config_file else {}
    if len(opts) % 2:
        raise UserError(f"Overrides come in pairs KEY VALUE; got {len(opts)} words: {shown(list(opts))}.")
    settings.update(zip(map(_present_name, opts[::2]), opts[1::2], strict=True))

    given, problems, notices = dict(DEFAULTS), [], []
    for name, value in settings.items():
        try:
            if name in KEYS:
                given[name] = KEYS[name].read(name, value)
            elif notice := read_foreign(name, value, KEYS):
                notices.append(notice)
        except UserError as error:
            problems.append(str(error))
            given.pop(name, None)
    more_problems, more_notices = check(given)
    for notice in notices + more_notices:
        warnings.warn(notice, stacklevel=2)
    if problems or more_problems:
        raise UserError(_report(problems + more_problems))
    cfg = make_node(given)
    cfg.freeze()
    return cfg


def _report(problems: list[str]) -> str:
    """Join the problems of a configuration in one paragraph."""
    if len(problems) == 1:
        return problems[0]
    listed = " ".join(f"({i}) {problem}" for i, problem in enumerate(problems[:MAX_PROBLEMS], start=1))
    rest = f" There are {len(problems) - MAX_PROBLEMS} more." if len(problems) > MAX_PROBLEMS else ""
    return f"The configuration has {len(problems)} problems: {listed}{rest}"


def leaves(node: Mapping, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to its leaves by dotted key: {'MODEL.DIRECT': True, ...}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _present_name(key: Any) -> str:
    """Translate DeMo's name of a key to ours, so that the later setting wins under either name."""
    return RENAMED.get(str(key), str(key))


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys: PyYAML keeps the last one, so a second `MODEL:` would replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Do as PyYAML does, but check the keys first."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value} occurs twice{key.start_mark}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _is_small(content: Any) -> bool:
    """Return whether at most MAX_VALUES are reached; a few aliases can expand to billions, or endlessly."""
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
    """Read the leaves of a YAML file by dotted key, with those of its `_BASE_` first."""
    if not path.is_file():
        raise UserError(
            f"There is no configuration file {path}. Those that come with the framework are under configs/."
        )
    if path.resolve() in children:
        raise UserError(f"{path} names itself as its own {BASE_KEY}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except Exception as error:  # int(), date() and deep nesting raise errors of their own on odd values
        reason = " ".join((str(error) or type(error).__name__).split())[:400]
        raise UserError(f"{path} is not a YAML file: {reason}") from error
    content = {} if content is None else content
    if not _is_small(content):
        raise UserError(f"{path} holds more than {MAX_VALUES} values when its aliases (*name) are followed.")
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values such as 'MODEL:', but holds {shown(content)}.")
    base = content.pop(BASE_KEY, None)
    flat = {_present_name(key): value for key, value in leaves(content).items()}
    if base is None:
        return flat
    if not isinstance(base, str) or not base.isprintable():
        raise UserError(
            f"{path}: {BASE_KEY} is {shown(base)}. Allowed: the path of another YAML file, relative to this one."
        )
    return {**_read_yaml(path.parent / base, (*children, path.resolve())), **flat}


def config_changes(former: str, cfg: CfgNode) -> list[str]:
    """List what differs between a dumped configuration and `cfg`: 'KEY was A, is B'.

    A key that is newer than the dump had its default then.
    """
    before, now = DEFAULTS | leaves(yaml.safe_load(former)), leaves(cfg)
    return [f"{key} was {before[key]!r}, is {now[key]!r}" for key in now if before[key] != now[key]]
