"""A key is declared by its default, its allowed values, its meaning, and what it needs to have an effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from yacs.config import CfgNode

from configs.compat import coerce, shown
from utils.errors import UserError

Settings = Mapping[str, Any]
"""Values by dotted key, without the keys whose values have been refused already."""


@dataclass(frozen=True)
class Needs:
    """A condition without which a key has no effect, so that only its default is accepted."""

    holds: Callable[[Settings], bool]
    because: str
    """The reason, which completes "the key has no effect while ..."."""
    remedy: str
    warn: bool = False
    """Only warn, because DeMo's own YAMLs or short trials of a longer YAML set the key where it has no effect."""


def needs(key: str, value: Any = True, note: str = "", warn: bool = False) -> Needs:
    """Require that `key` has `value`; `note` continues the reason that a message gives."""
    state = f"{key} is {not value}" if isinstance(value, bool) else f"{key} is not {value!r}"
    return Needs(lambda given: given[key] == value, f"{state}{note}", f"set {key}: {value}", warn)


def needs_one_of(key: str, values: Sequence[str]) -> Needs:
    """Require that `key` has one of several values."""
    names = " or ".join(map(repr, values))
    return Needs(lambda given: given[key] in values, f"{key} is not {names}", f"set {key} to {names}")


def needs_other(key: str, value: Any, remedy: str, note: str = "", warn: bool = False) -> Needs:
    """Require that `key`, in at least one stage, has another value than `value`."""
    return Needs(
        lambda given: any(item != value for item in as_list(given[key])),
        f"{key} is {value!r}{note}",
        f"{remedy} {key}",
        warn,
    )


@dataclass(frozen=True)
class Key:
    """The declaration of a key, from which everything else about it is derived."""

    default: Any
    allowed: str | tuple[str, ...] = ()
    """An interval such as "(0, 1]", for each number of a list, or the choices; if empty, every value is allowed."""
    needs: tuple[Needs, ...] = ()
    """Messages report the first one that does not hold."""
    per_stage: bool = False
    """Accept a list, too, with a value for each stage of the selection."""
    meaning: str = ""

    def means(self, text: str) -> Key:
        """Complete a declaration by the meaning of the key, in a sentence."""
        return replace(self, meaning=text)

    @property
    def allowed_text(self) -> str:
        """Write out the allowed values, as messages and the documentation show them."""
        text = self.allowed if isinstance(self.allowed, str) else ", ".join(map(repr, self.allowed))
        return f"{text}, or a list with one for each stage" if self.per_stage else text

    def read(self, name: str, value: Any) -> Any:
        """Convert `value` to the type of the default; the letter case of a choice does not matter.

        Raises:
            UserError: the value has another type or is not allowed.
        """
        value = coerce(name, value, self.default, per_stage=self.per_stage)
        items = as_list(value)
        if isinstance(self.allowed, str):
            is_allowed = all(_inside(item, self.allowed) for item in items)
        elif self.allowed:
            value = next((choice for choice in self.allowed if choice.lower() == value.lower()), value)
            is_allowed = value in self.allowed
        else:
            is_allowed = True
        if not (is_allowed and items):
            raise UserError(f"{name} is {shown(value)}. Allowed: {self.allowed_text}.")
        return value

    def unmet(self, given: Settings) -> Needs | None:
        """Return the first condition that does not hold, if there is one."""
        return next((need for need in self.needs if not need.holds(given)), None)


def as_list(value: Any) -> list:
    """Return a list as it is, and a single value in a list."""
    return value if isinstance(value, list) else [value]


def make_node(values: Settings) -> CfgNode:
    """Nest values by dotted key in a node, as copies."""
    root = CfgNode()
    for name, value in values.items():
        *sections, leaf = name.split(".")
        node = root
        for section in sections:
            node = node.setdefault(section, CfgNode())
        node[leaf] = deepcopy(value)
    return root


def _inside(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number > low if interval[0] == "(" else number >= low
    below = number < high if interval[-1] == ")" else number <= high
    return above and below and not math.isnan(number)
