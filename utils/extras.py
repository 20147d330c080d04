"""Optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType

from utils.errors import UserError


def import_extra(name: str, purpose: str, *, package: str = "", otherwise: str = "") -> ModuleType:
    """Import module `name`, which is not among the requirements.

    Args:
        name: the module, dotted or not.
        purpose: the subject of the message '... needs the package'.
        package: the package's name for pip, if it differs from the first part of `name`.
        otherwise: an alternative for the user.

    Raises:
        UserError: it is not installed.
    """
    package = package or name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name.split(".")[0]:
            raise  # it is installed, but broken
        raise UserError(
            f"{purpose} needs {package}, which is not installed: pip install {package}."
            f"{f' Or {otherwise}.' if otherwise else ''}"
        ) from error
