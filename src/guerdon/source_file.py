"""Python files that are named by their path: loaded once each, as modules of their own.

A file becomes a member of a package made for its folder, so that both `import sibling` and
`from .sibling import name` work in it. The module's name follows from the path alone: a worker
that loads the same file gets the same name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from guerdon.errors import UnknownReward

_PACKAGE_PREFIX = "guerdon_file_"
_lock = threading.RLock()
_files: dict[str, str] = {}


def load_file(path: str) -> ModuleType:
    """Import a Python file as a module of its own, once per path.

    Raises:
        UnknownReward: the file is missing, or its code fails; the cause is chained.
    """
    location = Path(path).expanduser().resolve()
    if location.is_dir():
        raise UnknownReward(f"{str(location)!r} is a folder, not a Python file")
    if not location.is_file():
        raise UnknownReward(f"no file {str(location)!r}")
    name = module_name(location)
    with _lock:
        if name not in sys.modules:
            _execute(name, location)
        _files[name] = str(location)
    return sys.modules[name]


def loaded_files() -> dict[str, str]:
    """Modules made by `load_file`, module name to path; a worker loads them the same way."""
    with _lock:
        return dict(_files)


def module_name(location: Path) -> str:
    """The module name of a file.

    Args:
        location: absolute.

    Example:
        >>> module_name(Path("/home/me/rewards.py"))
        'guerdon_file_1f1910774272.rewards'
    """
    stem = location.stem
    if "." in stem:
        stem = f"{stem.replace('.', '_')}_{_short_digest(stem)}"
    return f"{_PACKAGE_PREFIX}{_short_digest(str(location.parent))}.{stem}"


def source_path(module: str) -> str | None:
    """The file of a loaded module, or None where it has none (built in, a notebook)."""
    found = _files.get(module) or getattr(sys.modules.get(module), "__file__", None)
    return str(Path(found).resolve()) if found else None


def shown_module(module: str) -> str:
    """How people know a module: its name, or the path of a file that was loaded by path."""
    if module.startswith(_PACKAGE_PREFIX):
        return source_path(module) or module
    return module


def fault_line(error: BaseException, path: str | None) -> str:
    """Where in a file an import failed, as ` (line 3)`, or nothing where the file is not involved.

    Args:
        error: with its traceback.
        path: absolute.
    """
    if isinstance(error, SyntaxError) and error.filename == path and error.lineno:
        return f" (line {error.lineno})"
    line: int | None = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def _execute(name: str, location: Path) -> None:
    _ensure_package(name.partition(".")[0], location.parent)
    spec = importlib.util.spec_from_file_location(name, location)
    if spec is None or spec.loader is None:
        raise UnknownReward(f"cannot load {str(location)!r} as Python: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files[name] = str(location)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        _files.pop(name, None)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UnknownReward(
            f"{str(location)!r} fails to import{fault_line(error, str(location))}: "
            f"{describe(error)}"
        ) from error


def describe(error: BaseException) -> str:
    """An exception with its type; a failed import says by itself what it is."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, ImportError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ensure_package(name: str, folder: Path) -> None:
    """The package that holds the files of a folder; `import sibling` needs the folder itself."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if name in sys.modules:
        return
    package: Any = ModuleType(name, f"Files of {folder}, loaded by path.")
    package.__path__ = [str(folder)]
    package.__package__ = name
    sys.modules[name] = package


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
