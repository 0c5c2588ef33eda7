"""The third-party packages that decide a verdict: their presence, their versions, one module."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from guerdon.errors import MissingExtra

PACKAGES = ("math-verify", "latex2sympy2_extended", "antlr4-python3-runtime", "sympy")
"""Distributions whose version can change a verdict."""

TESTED = {
    "math-verify": "0.9.0",
    "latex2sympy2_extended": "1.11.0",
    "antlr4-python3-runtime": "4.13.2",
}
"""Versions for which the fast path was shown to give the reference's verdict. With any other
version every answer takes the slow path."""

_EXTRA = "math"
_PURPOSE = "the reward math_verify"


@cache
def versions() -> dict[str, str]:
    """Installed versions of `PACKAGES`.

    Raises:
        MissingExtra: one of them is not installed.
    """
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise MissingExtra(name, _EXTRA, _PURPOSE) from None
    return found


def require() -> None:
    """Check that the packages are there, without importing them."""
    versions()


@cache
def fast_path_holds() -> bool:
    """Whether the installed versions are the ones that the fast path was tested with."""
    installed = versions()
    return all(installed[name] == version for name, version in TESTED.items())


@cache
def normalisation_module() -> ModuleType:
    """The reference's own LaTeX normaliser, loaded alone.

    Importing it through its package would import SymPy (0.25 s, 50 MB), which the process of the
    trainer does not need. The file itself needs nothing but the standard library.
    """
    require()
    package = importlib.util.find_spec("latex2sympy2_extended")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("latex2sympy2_extended", _EXTRA, _PURPOSE)
    path = Path(next(iter(package.submodule_search_locations))) / "math_normalization.py"
    name = "guerdon.rules.math._normalisation"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MissingExtra("latex2sympy2_extended", _EXTRA, _PURPOSE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
