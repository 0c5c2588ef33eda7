"""Configuration files as plain data with the line of every value.

YAML is read as its version 1.2 says: `on`, `off`, `yes` and `no` are text where they are keys, and
refused as bare values, because version 1.1 reads them as booleans and a text "no" would count as
true. Nothing is constructed: a file gives mappings, lists, text, numbers, booleans and null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from guerdon.config.place import Key, Place
from guerdon.errors import ConfigError

Plain: TypeAlias = Any
"""Plain data; objects that a Python mapping holds pass through as they are."""

MAX_VALUES = 100_000
"""Most values of one file; aliases that multiply each other end here."""

_PLAIN, _TEXT, _COLLECTION = "plain", "text", "collection"
_EXPLICIT_TEXT = "tag:yaml.org,2002:str"
_MERGE_KEY = "<<"
_WORDS: Mapping[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_YAML_1_1_BOOLEANS = frozenset({"yes", "no", "on", "off"})
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class Quoted(str):
    """A quoted text of a file: what is interpolated into it stays text."""

    __slots__ = ()


class Document(msgspec.Struct, frozen=True):
    """A configuration before interpolation.

    Attributes:
        data: plain data.
        place: of the top, with the lines of everything below.
        folder: what relative paths start from.
    """

    data: Plain
    place: Place
    folder: Path


class _Loader(yaml.SafeLoader):
    """Composes nodes and guesses no types: the tag says only how a value was written."""

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none of its own."""
        if kind is not ScalarNode:
            return _COLLECTION
        return _PLAIN if implicit[0] else _TEXT


def read_file(path: Path) -> Document:
    """The document in a YAML file.

    Raises:
        ConfigError: no such file, no YAML, two equal keys in one mapping, or a tag.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error}") from None
    return parse(text, str(path), path.resolve().parent)


def parse(text: str, source: str, folder: Path) -> Document:
    """The document in a YAML text.

    Args:
        text: YAML.
        source: how messages call it.
        folder: what relative paths start from.
    """
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        context = f" ({error.context})" if error.context else ""
        raise ConfigError(f"{where}: no valid YAML: {error.problem}{context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: no valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    if node is None:
        raise ConfigError(f"{source}: the file is empty")
    reader = _Reader(source)
    try:
        data = reader.value(node, ())
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply, or an alias holds itself") from None
    return Document(data, Place(source, (), reader.lines), folder)


def _compose(text: str) -> Node | None:
    compose: Any = yaml.compose  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return compose(text, Loader=_Loader)


def scalar(text: str) -> Any:
    """What a bare word of a file means.

    Raises:
        ValueError: a bare yes, no, on or off.

    Example:
        >>> scalar("1e-3"), scalar("0x10"), scalar("true"), scalar("12:30"), scalar("~")
        (0.001, 16, True, '12:30', None)
    """
    if text in _WORDS:
        return _WORDS[text]
    if text.lower() in _YAML_1_1_BOOLEANS:
        raise ValueError(f"{text} is ambiguous: write true or false, or quote the text: '{text}'")
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `scalar` would not read as that text."""

    def ignore_aliases(self, data: object) -> bool:
        """Everything is written out."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    try:
        bare = scalar(text) is text
    except ValueError:
        bare = False
    represent: Any = cast("Any", dumper).represent_scalar
    return represent(_EXPLICIT_TEXT, text, style=None if bare else "'")


_Dumper.add_representer(str, _represent_text)


def dump(data: Plain) -> str:
    """Plain data as YAML that `parse` reads as the same data.

    Example:
        >>> print(dump({"on": "1e5", "n": 1}), end="")
        'on': '1e5'
        n: 1
    """
    write: Any = yaml.dump  # pyright: ignore[reportUnknownMemberType]
    return write(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Reader:
    """Turns composed nodes into plain data, and notes the lines."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[tuple[Key, ...], int] = {}
        self._count = 0

    def value(self, node: Node, keys: tuple[Key, ...]) -> Plain:
        self.lines.setdefault(keys, node.start_mark.line + 1)
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(node, keys, f"more than {MAX_VALUES} values")
        tag = node.tag
        if tag not in (_PLAIN, _TEXT, _COLLECTION, _EXPLICIT_TEXT):
            raise self._error(node, keys, f"tags such as {tag!r} are not read: leave it out")
        if isinstance(node, MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode):
            items = cast("list[Node]", node.value)
            return [self.value(item, (*keys, i)) for i, item in enumerate(items)]
        return self._scalar(cast("ScalarNode", node), keys)

    def _mapping(self, node: MappingNode, keys: tuple[Key, ...]) -> dict[str, Plain]:
        found: dict[str, Plain] = {}
        merged: dict[str, Plain] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in cast("list[tuple[Node, Node]]", node.value):
            key = self._key(key_node, keys)
            line = key_node.start_mark.line + 1
            if key == _MERGE_KEY and key_node.tag == _PLAIN:
                merged = self._merge(value_node, keys)
                continue
            if key in first_line:
                message = f"the key {key!r} is there twice, first on line {first_line[key]}"
                raise self._error(key_node, (*keys, key), message)
            first_line[key] = self.lines[(*keys, key)] = line
            found[key] = self.value(value_node, (*keys, key))
        return {**merged, **found}

    def _key(self, node: Node, keys: tuple[Key, ...]) -> str:
        if not isinstance(node, ScalarNode):
            raise self._error(node, keys, "a key must be text")
        return cast("str", node.value)

    def _merge(self, node: Node, keys: tuple[Key, ...]) -> dict[str, Plain]:
        """What `<<: *alias` brings in; the first of several mappings wins."""
        nodes = cast("list[Node]", node.value) if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Plain] = {}
        for item in nodes:
            if not isinstance(item, MappingNode):
                raise self._error(node, keys, "'<<' takes a mapping or a list of mappings")
            merged = {**self._mapping(item, keys), **merged}
        return merged

    def _scalar(self, node: ScalarNode, keys: tuple[Key, ...]) -> Plain:
        text = cast("str", node.value)
        if node.tag != _PLAIN:
            return Quoted(text) if "${" in text else text
        try:
            return scalar(text)
        except ValueError as error:
            raise self._error(node, keys, str(error)) from None

    def _error(self, node: Node, keys: tuple[Key, ...], message: str) -> ConfigError:
        lines = {**self.lines, keys: node.start_mark.line + 1}
        return Place(self.source, keys, lines).error(message)


def from_mapping(data: Mapping[Any, Any]) -> Document:
    """The document in a mapping made in Python, or in an OmegaConf object.

    Raises:
        ConfigError: a key that is no text, or an interpolation that OmegaConf cannot resolve.
    """
    if type(data).__module__.partition(".")[0] == "omegaconf":
        from guerdon.config.omega import plain_data

        data = plain_data(data)
    return Document(_plain(data, Place()), Place(), Path.cwd())


def _plain(value: Any, place: Place) -> Plain:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, Any]", value).items()
        return {_text_key(key, place): _plain(item, place.child(str(key))) for key, item in items}
    if isinstance(value, list | tuple):
        sequence = cast("Sequence[Any]", value)
        return [_plain(item, place.child(i)) for i, item in enumerate(sequence)]
    return value


def _text_key(key: object, place: Place) -> str:
    if isinstance(key, bool):
        # A loader of YAML 1.1 (OmegaConf's, too) has made a boolean of the policy's key `on`.
        return "on" if key else "off"
    if isinstance(key, int):
        return str(key)
    if not isinstance(key, str):
        raise place.error(f"the key {key!r} must be text")
    return key
