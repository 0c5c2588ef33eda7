"""Batches from rows: order, limits, repeated ids, groups from anywhere, and what is done."""

import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from guerdon.rollouts import batches as batches_module
from guerdon.rollouts import seen as seen_module
from guerdon.rollouts.batches import Batches, Choice
from guerdon.rollouts.mapping import parse_mapping
from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.output import StreamOutput
from guerdon.rollouts.reader import Reader
from guerdon.rollouts.seen import EARLIER, Seen
from guerdon.wire.portable import check_portable

NOTHING = StreamOutput(None)


class DoneRows:
    def __init__(self, digests):
        self._digests = digests
        self.last_row = max(digests, default=-1)

    def has(self, row):
        return row in self._digests

    def digest(self, row):
        return self._digests[row]


def write(tmp_path, rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def opened(path, mapping=(), **choice):
    return Batches(Reader(path), Choice(mapping=parse_mapping(mapping), **choice))


def simple(n, **fields):
    return {"response": f"r{n}", "sample_id": f"s{n}", "group_id": f"g{n // 2}", **fields}


def in_order(batches, done=NOTHING, batch_size=256):
    return list(batches.in_order(done, batch_size))


def by_group(batches, done=NOTHING, batch_size=256):
    return list(batches.by_group(done, batch_size))


def numbers(found):
    return [[item.row for item in batch] for batch in found]


def test_rows_come_in_order_in_batches(tmp_path):
    path = write(tmp_path, map(simple, range(10)))
    assert numbers(in_order(opened(path), NOTHING, 4)) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_large_rows_make_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(batches_module, "BATCH_BYTES", 2000)
    path = write(tmp_path, [simple(n, response="x" * 1500) for n in range(4)])
    assert numbers(in_order(opened(path), NOTHING)) == [[0, 1], [2, 3]]


def test_a_limit_counts_rows_that_are_read(tmp_path):
    path = write(tmp_path, map(simple, range(10)))
    assert numbers(in_order(opened(path, limit=3), NOTHING)) == [[0, 1, 2]]
    assert numbers(in_order(opened(path, limit=30), NOTHING, 99)) == [list(range(10))]


def test_bad_rows_travel_along_with_their_place(tmp_path):
    rows = [simple(0), "{oops", {"sample_id": "s2"}, simple(3)]
    items = in_order(opened(write(tmp_path, rows)), NOTHING)[0]
    assert [item.sample is None for item in items] == [False, True, True, False]
    assert (items[1].place, items[2].place) == ("line 2", "line 3")
    assert "not JSON" in items[1].problem
    assert "no column 'response'" in items[2].problem
    assert items[2].sample_id == "s2"


def test_a_repeated_id_is_refused_wherever_it_is(tmp_path):
    rows = [simple(n) for n in range(600)]
    rows[599]["sample_id"] = "s1"
    items = [item for batch in in_order(opened(write(tmp_path, rows)), NOTHING) for item in batch]
    bad = [item for item in items if item.problem]
    assert [(item.row, item.sample_id) for item in bad] == [(599, "s1")]
    assert "also that of row 1" in bad[0].problem
    unmapped = in_order(opened(write(tmp_path, rows), ["sample_id="]), NOTHING)
    assert not any(item.problem for batch in unmapped for item in batch)


def test_ids_are_remembered_when_there_are_many(monkeypatch):
    monkeypatch.setattr(seen_module, "RECENT", 16)
    seen = Seen()
    names = [f"id{n}" for n in range(1000)]
    assert [seen.add(name, n) for n, name in enumerate(names)] == [None] * 1000
    random.Random(2).shuffle(names)
    found = [seen.add(name, 5000) for name in names]
    assert None not in found
    assert EARLIER in found
    assert seen.add("another", 1) is None


def test_what_is_done_is_passed_over_and_must_be_the_same(tmp_path):
    path = write(tmp_path, map(simple, range(6)))
    digests = {i.row: i.digest for b in in_order(opened(path), NOTHING) for i in b}
    done = DoneRows({row: digests[row] for row in (0, 3)})
    assert numbers(in_order(opened(path), done)) == [[1, 2, 4, 5]]
    changed = write(tmp_path, [simple(n, extra=n == 3) for n in range(6)], "changed.jsonl")
    with pytest.raises(Misuse, match=r"line 1: this row differs"):
        in_order(opened(changed), done)
    shorter = write(tmp_path, map(simple, range(2)), "shorter.jsonl")
    with pytest.raises(Misuse, match="has 2 rows, but row 3 is scored already"):
        in_order(opened(shorter), done)
    assert numbers(in_order(opened(shorter, limit=2), done)) == [[1]]


@pytest.mark.parametrize(
    "change", [{"mapping": ["metadata.x=group_id"]}, {"mapping": ["group_id="]}, {"salt": "7/test"}]
)
def test_the_digest_covers_how_a_row_is_read(tmp_path, change):
    path = write(tmp_path, [simple(0)])
    plain = in_order(opened(path), NOTHING)[0][0].digest
    assert in_order(opened(path), NOTHING)[0][0].digest == plain
    assert in_order(opened(path, **change), NOTHING)[0][0].digest != plain


def shuffled(count, seed=1):
    rows = [simple(n, group_id=f"g{n % (count // 4)}") for n in range(count)]
    random.Random(seed).shuffle(rows)
    return rows


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_groups_come_whole_from_anywhere(tmp_path, batch_size):
    rows = shuffled(200)
    rows[17] = "{oops"
    found = by_group(opened(write(tmp_path, rows)), NOTHING, batch_size)
    assert sorted(item.row for batch in found for item in batch) == list(range(200))
    where = {}
    for number, batch in enumerate(found):
        for item in batch:
            if item.sample is not None:
                where.setdefault(item.group_id, set()).add(number)
    assert len(where) == 50
    assert all(len(places) == 1 for places in where.values())
    plain = in_order(opened(write(tmp_path, rows)), NOTHING)
    assert {i.row: i.digest for b in found for i in b} == {
        i.row: i.digest for b in plain for i in b
    }


def test_unusable_members_come_with_their_group(tmp_path):
    rows = [simple(0), {**simple(1), "response": None}, simple(2), {**simple(3), "sample_id": "s2"}]
    unknown, batch = by_group(opened(write(tmp_path, [*rows, "{oops"])))
    assert [item.row for item in unknown] == [4]
    assert [(item.group_id, item.sample is None) for item in batch] == [
        ("g0", False),
        ("g0", True),
        ("g1", False),
        ("g1", True),
    ]
    assert "'response' is null" in batch[1].problem
    assert "also that of row 2" in batch[3].problem


def test_an_unusable_row_belongs_to_the_group_of_its_prompt(tmp_path):
    rows = [{"prompt": "2 + 2", "response": text} for text in ("4", None, "5")]
    ((one, lost, two),) = by_group(opened(write(tmp_path, rows)))
    assert lost.sample is None
    assert one.group_id == lost.group_id == two.group_id is not None


def test_a_group_that_was_written_in_part_comes_again_as_a_whole(tmp_path):
    path = write(tmp_path, map(simple, range(8)))
    digests = {i.row: i.digest for b in by_group(opened(path), NOTHING) for i in b}
    done = DoneRows({row: digests[row] for row in (0, 1, 2)})
    assert numbers(by_group(opened(path), done)) == [[2, 3, 4, 5, 6, 7]]


def test_rows_without_a_group_are_groups_of_their_own(tmp_path):
    rows = [{"response": "x"} for _ in range(3)]
    assert numbers(by_group(opened(write(tmp_path, rows)), NOTHING, 1)) == [
        [0],
        [1],
        [2],
    ]


def test_parquet_rows_have_the_same_groups(tmp_path):
    import pyarrow
    import pyarrow.parquet as pq

    rows = [row for row in shuffled(40) if isinstance(row, dict)]
    path = tmp_path / "data.parquet"
    pq.write_table(pyarrow.Table.from_pylist(rows), path)
    found = by_group(opened(str(path), keep_input=True), NOTHING, 4)
    groups = [{item.group_id for item in batch} for batch in found]
    assert len(groups) == 10
    assert all(len(names) == 1 for names in groups)


def test_parquet_values_are_the_same_alone_and_in_groups(tmp_path):
    import pyarrow
    import pyarrow.parquet as pq

    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    row = {
        "response": "x",
        "group_id": "g",
        "ground_truth": Decimal("2.50"),
        "day": noon.date(),
        "at": noon,
        "nested": [{"price": Decimal("0.1")}],
        "image": b"\xff",
    }
    path = tmp_path / "data.parquet"
    pq.write_table(pyarrow.Table.from_pylist([row]), path)
    ((alone,),) = in_order(opened(str(path)))
    ((grouped,),) = by_group(opened(str(path)))
    assert alone.sample == grouped.sample
    assert alone.sample.ground_truth == "2.50"
    assert alone.sample.metadata == {
        "day": "2024-01-01",
        "at": "2024-01-01T12:00:00Z",
        "nested": [{"price": "0.1"}],
        "image": b"\xff",
    }
    check_portable({"sample": alone.sample}, target="a worker process")


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_parquet_in_every_packing(tmp_path, packed):
    import gzip

    import pyarrow
    import pyarrow.parquet as pq
    import zstandard

    rows = [
        {
            "data_source": "d",
            "prompt": [{"role": "user", "content": "q"}],
            "reward_model": {"ground_truth": "4", "style": "rule"},
            "extra_info": {"index": n},
            "response": f"r{n}",
        }
        for n in range(5)
    ]
    path = tmp_path / "data.parquet"
    pq.write_table(pyarrow.Table.from_pylist(rows), path)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    packed_path = tmp_path / f"packed.parquet{packed}"
    packed_path.write_bytes(pack(path.read_bytes()))
    reader = opened(str(packed_path))
    assert reader.layout.name == "verl"
    assert reader.reader.total == 5
    items = in_order(reader)[0]
    assert [item.sample.response for item in items] == [f"r{n}" for n in range(5)]
    assert items[3].sample.metadata["index"] == 3
    assert items[3].place == "row 4"


def test_a_torn_parquet_file_is_refused(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(Misuse, match="no readable Parquet file"):
        Reader(str(tmp_path / "data.parquet"))


def test_the_length_of_an_input_is_known_at_last(tmp_path):
    found = opened(write(tmp_path, map(simple, range(1000))))
    batches = found.in_order(NOTHING, 100)
    next(batches)
    assert found.total() == pytest.approx(1000, rel=0.1)
    list(batches)
    assert found.total() == 1000
