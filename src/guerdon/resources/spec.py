"""What a resource is made from: a frozen value, equal where its content is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar, cast

import msgspec

from guerdon.errors import ConfigError
from guerdon.fingerprint import digest
from guerdon.resources.resource import Resource

Backend: TypeAlias = Literal["local", "remote"]
BACKENDS = ("local", "remote")
PLANNED = ("ray",)

R_co = TypeVar("R_co", bound=Resource, covariant=True)


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """How many resources of one spec a process keeps.

    Attributes:
        min: kept ready from the first request on.
        max: at one time; who wants more waits.
        idle_seconds: one that nobody used for so long is stopped, beyond `min`.
        check_seconds: one that lies idle is checked this often; it is always checked before it is
            handed out.
        patience_seconds: a start, reset, check or stop that takes longer is given up, with its
            thread.

    Raises:
        ConfigError: an impossible number.
    """

    min: int = 0
    max: int = 8
    idle_seconds: float = 300.0
    check_seconds: float = 30.0
    patience_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max or self.max < 1:
            raise ConfigError(f"a pool has 0 <= min <= max, got min {self.min} and max {self.max}")
        for name in ("idle_seconds", "check_seconds", "patience_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


class Spec(msgspec.Struct, Generic[R_co], frozen=True, kw_only=True):
    """Base class of specs; a subclass adds fields of plain data and makes its resource.

    Two specs are the same, and equal, where type and all fields are, so that other arguments give
    another resource. Fields hold plain data: numbers, texts, bytes, paths, enumerations, and
    mappings, sequences, sets and structs of them. `name` tells apart two that are otherwise equal,
    such as a database for the candidate and one for the reference.

    Attributes:
        name: of this resource among equal ones.
        pool: how many are kept.

    Example:
        >>> class Dice(Resource):
        ...     def __init__(self, sides): self.sides = sides
        >>> class DiceSpec(Spec[Dice], frozen=True):
        ...     sides: int = 6
        ...     def make(self): return Dice(self.sides)
        >>> DiceSpec().key == DiceSpec(sides=6).key, DiceSpec().key == DiceSpec(sides=8).key
        (True, False)
    """

    backends: ClassVar[tuple[Backend, ...]] = ("local",)
    """Where resources of this kind can live: `local`, on the machine of the call, or `remote`, on
    another one that a URL names. The first is where they live by default."""

    secrets: ClassVar[tuple[str, ...]] = ()
    """Fields that `repr` leaves out, such as a token."""

    name: str | None = None
    pool: Pool = msgspec.field(default_factory=Pool)

    def make(self) -> R_co:
        """A resource that is not started yet.

        Raises:
            ConfigError: the spec cannot work.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method make")

    @property
    def key(self) -> str:
        """Equal for specs that are the same; also in another process.

        Raises:
            ConfigError: a field holds something else than plain data, which has no content to
                compare.
        """
        kind = type(self)
        return digest({f"{kind.__module__}.{kind.__qualname__}": self._plain()})

    def copied(self) -> Self:
        """The same spec, which nobody can change through a list or a mapping in it."""
        return msgspec.structs.replace(self, **self._plain())

    def _plain(self) -> dict[str, Any]:
        fields = msgspec.structs.asdict(self)
        kind = type(self).__name__
        return {name: _plain(value, f"{kind}.{name}") for name, value in fields.items()}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.key == cast("Spec[Any]", other).key

    def __ne__(self, other: object) -> bool:  # a struct's own one compares 1 and 1.0 as equal
        return not self == other

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        """All fields, but for the values of secrets."""
        fields = msgspec.structs.asdict(self)
        hidden = {name: "..." for name in self.secrets if fields[name]}
        shown = [f"{name}={hidden.get(name) or repr(value)}" for name, value in fields.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        """Kind and name, for messages."""
        kind = type(self).__name__.removesuffix("Spec")
        return kind if self.name is None else f"{kind} {self.name!r}"


def _plain(value: Any, place: str) -> Any:
    """A copy of plain data.

    Raises:
        ConfigError: it is something else.
    """
    if value is None or isinstance(value, str | int | float | bytes | PurePath | Enum):
        return value
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
        copied = {name: _plain(item, f"{place}.{name}") for name, item in fields.items()}
        return msgspec.structs.replace(value, **copied)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_plain(key, place): _plain(item, f"{place}[{key!r}]") for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        kind = cast("type[Any]", type(value))  # pyright: ignore[reportUnknownArgumentType]
        items = [_plain(item, place) for item in cast("Iterable[Any]", value)]
        return kind(*items) if hasattr(kind, "_fields") else kind(items)
    raise ConfigError(
        f"{place} is a {type(value).__name__}: a spec holds plain data, from which its resource is "
        "made and by which it is recognised"
    )


def checked_backend(spec: Spec[Any], wanted: str | None) -> Backend:
    """The backend, if resources of the spec can live there; by default where they live.

    Raises:
        ConfigError: they cannot, or there is no such backend.
    """
    if not isinstance(spec, Spec):  # pyright: ignore[reportUnnecessaryIsInstance]
        kind = type(spec).__name__
        raise ConfigError(f"acquire_resource takes a spec such as PythonSpec(), got a {kind}")
    backend = spec.backends[0] if wanted is None else wanted
    if backend not in BACKENDS:
        later = " (planned, but not there yet)" if backend in PLANNED else ""
        raise ConfigError(f"a backend is one of {', '.join(BACKENDS)}, got {backend!r}{later}")
    if backend not in spec.backends:
        lives = " or ".join(map(repr, spec.backends))
        raise ConfigError(f"{spec} lives on the backend {lives}, not on {backend!r}")
    return backend
