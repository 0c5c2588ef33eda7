"""OmegaConf objects as plain data. Imported only for one that was made elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from guerdon.config.place import Place

_VARIABLE = re.compile(r"\$\{\s*(?:oc\.)?env\s*:")


def plain_data(config: Any) -> Mapping[Any, Any]:
    """The content of a DictConfig, with the references that OmegaConf knows resolved.

    Environment variables are left to `guerdon.config.interpolation`, which keeps secrets out of
    records. Everything is resolved one by one, so that an error names its place.

    Raises:
        ConfigError: a mandatory value (`???`) is missing, or an interpolation cannot be resolved.
    """
    return _plain(config, Place())


def _plain(node: Any, place: Place) -> Any:
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(node, ListConfig):
        raw: Any = OmegaConf.to_container(node, resolve=False)
        return [_item(node, i, raw[i], place.child(i)) for i in range(len(node))]
    if isinstance(node, DictConfig):
        raw = OmegaConf.to_container(node, resolve=False)
        return {key: _item(node, key, raw[key], place.child(str(key))) for key in raw}
    return node


def _item(node: Any, key: Any, raw: object, place: Place) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(raw, str) and _is_ours(raw):
        return raw
    if OmegaConf.is_missing(node, key):
        raise place.error("the value is missing (???)")
    try:
        found = node[key]
    except OmegaConfBaseException as error:
        raise place.error(str(error).partition("\n")[0]) from None
    return _plain(found, place)


def _is_ours(raw: str) -> bool:
    """Whether OmegaConf has nothing to resolve in a text, or could not."""
    variables = len(_VARIABLE.findall(raw))
    return bool(variables) and (variables == raw.count("${") or "${env:" in raw)
