"""The bytes of inputs: forms by content, damage, and messages for what cannot be read."""

import gzip
import io
import random
import sys

import pytest
import zstandard

from guerdon.rollouts.misuse import Misuse
from guerdon.rollouts.source import DAMAGED, open_source

CONTENT = b"".join(b'{"n": %d, "t": "%s"}\n' % (n, b"x" * (n % 50)) for n in range(5000))
NOISE = random.Random(3).randbytes(400_000).hex().encode()


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def take_all(source, delivered):
    while piece := source.stream.read1(1 << 16):
        delivered += piece


COMPRESSIONS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.compress(data),
    "gzip members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "gzip padding": lambda data: gzip.compress(data) + b"\0" * 512,
    "zstd frames": lambda data: zstandard.compress(data[:100]) + zstandard.compress(data[100:]),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ""])
def test_compression_is_known_by_content(tmp_path, name, suffix):
    source = open_source(write(tmp_path, f"data{suffix}", COMPRESSIONS[name](CONTENT)))
    assert source.kind == "json"
    assert source.stream.read() == CONTENT
    assert source.fraction(len(CONTENT)) == 1.0
    source.close()


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_truncation_delivers_what_was_whole_and_then_raises(tmp_path, compress, keep):
    packed = compress(NOISE)
    source = open_source(write(tmp_path, "data.gz", packed[: int(len(packed) * keep)]))
    delivered = bytearray()
    with pytest.raises(DAMAGED):
        take_all(source, delivered)
    assert NOISE.startswith(delivered)
    # zstd works in blocks of 128 KiB, gzip in smaller ones.
    assert len(delivered) > len(NOISE) * keep - (1 << 18)
    with pytest.raises(DAMAGED):
        source.stream.read1(1)


def test_a_flipped_bit_is_damage(tmp_path):
    packed = bytearray(gzip.compress(NOISE))
    packed[len(packed) // 2] ^= 0x40
    source = open_source(write(tmp_path, "data.gz", bytes(packed)))
    with pytest.raises(DAMAGED):
        take_all(source, bytearray())


REFUSED = {
    "missing": (lambda t: str(t / "none.jsonl"), "no such file"),
    "directory": (str, "is a directory"),
    "empty": (lambda t: write(t, "empty.jsonl", b""), "is empty"),
    "empty gzip": (lambda t: write(t, "e.jsonl.gz", gzip.compress(b"")), "is empty"),
    "csv": (lambda t: write(t, "data.csv", b"a,b\n1,2\n"), ".csv files cannot be read"),
    "no parquet": (lambda t: write(t, "data.parquet", b"[]"), "no Parquet file"),
    "torn gzip header": (lambda t: write(t, "d.gz", b"\x1f\x8b\x08"), "truncated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_name(tmp_path, case):
    make, message = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(Misuse, match=message) as refused:
        open_source(path)
    assert path in str(refused.value)


def test_a_file_of_somebody_else(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "FileIO", denied)
    with pytest.raises(Misuse, match=r"cannot read data\.jsonl: Permission denied"):
        open_source("data.jsonl")


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    path = write(tmp_path, "data.jsonl.zst", zstandard.compress(b"{}\n"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"guerdon\[zstd\]"):
        open_source(path)
