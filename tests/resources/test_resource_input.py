"""What a user may give to resources by mistake, and what he is told."""

from __future__ import annotations

from typing import Any

import pytest

from guerdon.errors import ConfigError
from guerdon.resources import WorkspaceSpec
from guerdon.resources.database import Rows
from guerdon.resources.sandbox import Command
from guerdon.resources.workspace import Workspace

TEXT: Any = "ls -la"


def test_rows_of_a_statement_that_failed_are_no_empty_result() -> None:
    failed = Rows(error="no such table: nope")
    with pytest.raises(ValueError, match=r"look at \.error before \.rows: no such table"):
        len(failed.rows)
    with pytest.raises(ValueError, match=r"before \.changed"):
        _ = failed.changed
    assert (failed.error, Rows(read=((1,),), affected=2).rows) == ("no such table: nope", ((1,),))
    assert Rows(affected=2).changed == 2


def test_a_text_is_no_list_of_arguments() -> None:
    with pytest.raises(ValueError, match=r"argv is a text; write \(\"sh\", \"-c\", 'ls -la'\)"):
        Command(argv=TEXT)
    workspace = Workspace(WorkspaceSpec())
    with pytest.raises(ValueError, match="argv is a text"):
        workspace.run(TEXT)


def test_a_text_is_no_bytes() -> None:
    with pytest.raises(ValueError, match=r"a\.txt is a text where bytes are wanted"):
        Command(argv=("ls",), files={"a.txt": TEXT})
    with pytest.raises(ValueError, match="stdin is a text"):
        Command(argv=("ls",), stdin=TEXT)
    with pytest.raises(ConfigError, match=r"'a\.txt' is a text"):
        WorkspaceSpec(files={"a.txt": TEXT})
    with pytest.raises(ValueError, match="is a text"):
        Workspace(WorkspaceSpec()).write("a.txt", TEXT)
