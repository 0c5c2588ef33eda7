"""Registers the managers of `verl_manager` as `guerdon`; verl imports this through `verl.plugins`.

Every process that imports verl comes here, and few of them score. So nothing is imported yet: the
managers are registered when verl itself imports a registry. verl hides what goes wrong with a
plug-in, and says later only that there is no manager `guerdon`: so it is logged here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

NAME = "guerdon"

REGISTRIES = {
    "verl.experimental.reward_loop.reward_manager.registry": "GuerdonRewardManager",
    "verl.workers.reward_manager.registry": "GuerdonBatchManager",
}
"""Modules of verl with a function `register(name)`, and what they get of `verl_manager`."""


def register(registry: ModuleType) -> None:
    """Register the manager that belongs into a registry of the verl that is installed."""
    try:
        managers = import_module("guerdon.trainers.verl_manager")
        registry.register(NAME)(getattr(managers, REGISTRIES[registry.__name__]))
    except Exception as error:
        logging.getLogger(__name__).warning(
            "guerdon's reward manager is not registered in %s: %s: %s",
            registry.__name__,
            type(error).__name__,
            error,
        )


class WhenImported(MetaPathFinder):
    """Finds the registries as usual, and registers in them once they are there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As every finder; None for all other modules."""
        if fullname not in REGISTRIES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Loads a module as its own loader does, and gives the module back to that loader."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        self._own.exec_module(module)
        register(module)


def install() -> None:
    """Register where a registry is imported already, and wait for the others."""
    for name in REGISTRIES:
        if name in sys.modules:
            register(sys.modules[name])
    if not any(isinstance(finder, WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, WhenImported())


install()
