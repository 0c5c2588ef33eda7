"""The unfinished file: torn ends, garbage, order, two writers, a full disk."""

import errno
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rollouts.encoding import encode_line
from guerdon.rollouts.journal import Journal
from guerdon.rollouts.misuse import Misuse, StorageFailed


def row(n, **fields):
    return {
        "row": n,
        "sample_id": f"s{n}",
        "group_id": None,
        "reward": 1.0,
        "outcome": "score",
        "components": {},
        "failure": None,
        "assigned": None,
        "elapsed_s": 0.0,
        "reward_name": "r",
        "fingerprint": "f",
        "input_digest": f"{n:016x}",
        **fields,
    }


def write(journal, rows):
    journal.append(rows, map(encode_line, rows))


def reopened(path):
    journal = Journal(path)
    return journal, [found["row"] for found in journal.load()]


def test_rows_come_back(tmp_path):
    journal = Journal(tmp_path / "j")
    write(journal, [row(0), row(1)])
    write(journal, [row(2)])
    journal.close()
    again, found = reopened(tmp_path / "j")
    assert found == [0, 1, 2]
    assert again.is_orderly
    assert again.has(2)
    assert not again.has(3)
    assert again.digest(2) == f"{2:016x}"


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(8)),
    cut=st.integers(0, 400),
    garbage=st.sampled_from([b"", b"\0" * 50, b"{}\n", b'{"row": 3}\n', b"\xff\xfe\n", b"\n"]),
    place=st.integers(0, 8),
)
def test_any_whole_lines_can_be_trusted(tmp_path_factory, order, cut, garbage, place):
    """Rows in any order, garbage between them, and any number of bytes cut off the end."""
    path = tmp_path_factory.mktemp("journal") / "j"
    lines = [encode_line(row(n)) for n in order]
    parts = [*lines[:place], garbage, *lines[place:]]
    content = b"".join(parts)
    content = content[: max(0, len(content) - cut)]
    path.write_bytes(content)
    kept = [n for n, line in zip(order, lines, strict=True) if line in content]
    torn_by_zeros = garbage == b"\0" * 50 and place < 8
    if torn_by_zeros:  # the line after it cannot be told from it
        kept = [n for n in kept if n != order[place]]
    journal, found = reopened(path)
    assert found == kept
    missing = [n for n in range(8) if not journal.has(n)]
    write(journal, [row(n) for n in missing])
    assert list(journal.lines()) == [encode_line(row(n)) for n in range(8)]
    if journal.is_orderly:
        assert path.read_bytes() == b"".join(journal.lines())
    journal.close()


def test_a_second_line_for_a_row_is_passed_over(tmp_path):
    (tmp_path / "j").write_bytes(encode_line(row(0, reward=0.5)) + encode_line(row(0)))
    journal, found = reopened(tmp_path / "j")
    assert found == [0]
    assert list(journal.lines()) == [encode_line(row(0, reward=0.5))]


@pytest.mark.parametrize(
    "change",
    [
        {"row": -1},
        {"row": True},
        {"row": "1"},
        {"input_digest": "xyz"},
        {"input_digest": None},
        {"outcome": "maybe"},
        {"fingerprint": None},
        {"components": None},
    ],
)
def test_lines_that_are_no_rows_are_passed_over(tmp_path, change):
    (tmp_path / "j").write_bytes(encode_line(row(0, **change)) + encode_line(row(1)))
    assert reopened(tmp_path / "j")[1] == [1]


def test_two_processes_cannot_write_one_file(tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(Misuse, match="being written by another process"):
        Journal(tmp_path / "j")
    journal.close()
    Journal(tmp_path / "j").close()


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    write(journal, [row(0)])
    real = os.pwrite
    room = [37]

    def short(file, data, offset):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, data[: room[0]], offset)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(StorageFailed, match="No space left"):
        write(journal, [row(1), row(2)])
    monkeypatch.undo()
    assert not journal.has(1)
    assert (tmp_path / "j").read_bytes() == encode_line(row(0))
    write(journal, [row(1)])
    assert len(list(journal.lines())) == 2


def test_lines_come_in_the_order_of_the_input(tmp_path):
    journal = Journal(tmp_path / "j")
    order = list(range(200))
    random.Random(5).shuffle(order)
    for n in order:
        write(journal, [row(n)])
    assert not journal.is_orderly
    assert list(journal.lines()) == [encode_line(row(n)) for n in range(200)]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(Misuse, match="cannot write"):
        Journal(tmp_path / "no folder" / "j")
