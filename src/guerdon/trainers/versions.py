"""Which versions of a trainer an adapter works with."""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec

from guerdon.errors import ConfigError

logger = logging.getLogger("guerdon.trainers")


class Versions(msgspec.Struct, frozen=True):
    """What is known about the versions of a trainer.

    Attributes:
        package: as pip knows it.
        least: the oldest that has what the adapter needs.
        tested: the one that the contract tests run.
        needs: what `least` brought, for the message; empty where no older one was ever run.

    Example:
        >>> Versions("numpy", least="999", tested="999", needs="x").check()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        guerdon.errors.ConfigError: numpy ... is installed, which has no x: ...
    """

    package: str
    least: str
    tested: str
    needs: str = ""

    def check(self) -> None:
        """Refuse a version that cannot work; a trainer that is not installed is none.

        One that is newer than the tested one is a warning, once in a process.

        Raises:
            ConfigError: naming the versions that work.
        """
        try:
            found = version(self.package)
        except PackageNotFoundError:
            return
        if _numbers(found) < _numbers(self.least):
            lacks = f"has no {self.needs}" if self.needs else "was never run with Guerdon"
            raise ConfigError(
                f"{self.package} {found} is installed, which {lacks}: use "
                f"{self.package} {self.least} or later ({self.tested} is tested): "
                f"pip install '{self.package}>={self.least}'"
            )
        if _numbers(found) > _numbers(self.tested):
            _warn_untested(self.package, found, self.least, self.tested)


@cache
def _warn_untested(package: str, found: str, least: str, tested: str) -> None:
    logger.warning(
        "%s %s is newer than what Guerdon was tested with (%s %s to %s): it may call rewards in "
        "another way",
        package,
        found,
        package,
        least,
        tested,
    )


def _numbers(text: str) -> tuple[int, ...]:
    """The release part without zeros at its end: `0.9.1.dev2` is (0, 9, 1), `1.0.0` is (1,)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    numbers = list(map(int, found.group().split("."))) if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
