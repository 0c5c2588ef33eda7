"""Files to start from, one folder per trainer under `starters/`.

Each file is kept with the suffix `.template`, and copied without it. `{REWARD:name}` in one stands
for the whole path of the `reward.py` beside it with a name of that file, quoted as the file wants
it; scripts find it beside themselves. `next.txt` says what to do then, with the folder as a shell
reads it. A trainer is added by adding a folder.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from guerdon.errors import ConfigError, nearest

STARTERS = Path(__file__).with_name("starters")
SUFFIX = ".template"
NEXT = "next.txt"
FOLDER = "{FOLDER}"
_REWARD = re.compile(r"\{REWARD:(\w+)\}")
_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)


def override(text: str) -> str:
    """A value on the command line of Hydra (also of OmegaConf, where it has no backslash).

    Source: Hydra 1.3, "Override grammar", quoted values: a backslash escapes the quote, and another
    backslash only in front of one; `\\${` is no interpolation.

    Example:
        >>> print(override("/runs/a.py:f"), override('/my "runs"/a.py:f'))
        /runs/a.py:f "/my \\"runs\\"/a.py:f"
    """
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    return f'"{_literal(escaped)}"'


def _literal(text: str) -> str:
    """A text in which OmegaConf finds no interpolation."""
    return text.replace("${", "\\${")


def _yaml(text: str) -> str:
    return json.dumps(_literal(text), ensure_ascii=False)


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


QUOTED: Mapping[str, Callable[[str], str]] = {".args": override, ".yaml": _yaml, ".toml": _toml}
"""How a text is written in a file, by its suffix; JSON's texts are texts of YAML and TOML."""


class Starter(msgspec.Struct, frozen=True):
    """What is written for one trainer.

    Attributes:
        source: where its templates are.
    """

    source: Path

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that are written."""
        found = self.source.glob(f"*{SUFFIX}")
        return tuple(sorted(path.name.removesuffix(SUFFIX) for path in found))

    def text(self, name: str, folder: Path) -> str:
        """A file's text for a folder."""
        text = (self.source / f"{name}{SUFFIX}").read_text(encoding="utf-8")
        path = folder.resolve() / "reward.py"
        quoted = QUOTED.get(Path(name).suffix, str)
        return _REWARD.sub(lambda found: quoted(f"{path}:{found[1]}"), text)

    def next_steps(self, folder: Path) -> str:
        """What to do with the files."""
        text = (self.source / NEXT).read_text(encoding="utf-8")
        return text.replace(FOLDER, shlex.quote(str(folder))).rstrip()


def starters() -> Mapping[str, Starter]:
    """All starters by trainer.

    Example:
        >>> starters()["trl"].files
        ('problems.jsonl', 'reward.py', 'train.py')
    """
    found = sorted(path for path in STARTERS.iterdir() if (path / NEXT).is_file())
    return {path.name: Starter(path) for path in found}


def write(name: str, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the files for a trainer; all of them or none.

    Args:
        name: of the trainer.
        folder: made where it is not there.
        overwrite: whether files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ConfigError: the trainer is unknown, a file is there already, or the folder cannot be
            written to.
    """
    known = starters()
    if name not in known:
        raise ConfigError(
            f"no trainer {name!r}{nearest(name, known)} (trainers: {', '.join(known)})"
        )
    starter = known[name]
    paths = [folder / file for file in starter.files]
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise ConfigError(f"{there[0]} is there already: name another --folder, or say --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.write_text(starter.text(path.name, folder), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error}") from error
    return paths
