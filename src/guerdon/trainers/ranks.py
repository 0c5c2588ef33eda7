"""The processes of a training run, as far as rewards need to know of each other.

Bytes travel between them over `torch.distributed` on the CPU (gloo): no pickle, no memory of the
device. Every method is collective: all ranks call it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from guerdon.errors import ConfigError
from guerdon.models.device import require
from guerdon.outcomes import Column
from guerdon.tokens import Advantages, Measured
from guerdon.tokens.array import Scores, on_host
from guerdon.wire.codec import decode_msgpack, encode_msgpack

Compute = Callable[[Mapping[str, Column], Sequence[Hashable]], Advantages[Any]]
"""Gets columns and group keys of all ranks, in the order of the ranks."""


class Ranks:
    """This process among the others.

    Args:
        group: a process group that can send tensors of the CPU; by default all processes, over the
            default group where it can, else over a new gloo group (NCCL sends from GPUs only).

    Raises:
        ConfigError: `torch.distributed` is not initialised.

    Example:
        >>> import tempfile, torch.distributed as dist
        >>> file = tempfile.mkdtemp() + "/init"
        >>> dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
        >>> Ranks().gather(b"alone")
        [b'alone']
        >>> dist.destroy_process_group()
    """

    def __init__(self, group: Any = None) -> None:
        require("torch", "scoring over several ranks")
        dist = _distributed()
        if not dist.is_initialized():
            raise ConfigError("torch.distributed is not initialised: call init_process_group first")
        if group is None and "gloo" not in str(dist.get_backend_config()):
            group = dist.new_group(backend="gloo")
        self._group = group
        self.rank: int = dist.get_rank(group)
        self.size: int = dist.get_world_size(group)

    @classmethod
    def apart(cls) -> Ranks:
        """All processes, over a gloo group that nothing else sends on."""
        return cls(_distributed().new_group(backend="gloo"))

    def exchange(self, parcels: Sequence[bytes]) -> list[bytes]:
        """Send one parcel to each rank; returns those that came, one from each."""
        torch, dist = _torch(), _distributed()
        if len(parcels) != self.size:
            raise ValueError(f"{len(parcels)} parcels for {self.size} ranks")
        sent = [len(parcel) for parcel in parcels]
        sizes = torch.empty(self.size, dtype=torch.int64)
        dist.all_to_all_single(sizes, torch.tensor(sent), group=self._group)
        received: list[int] = sizes.tolist()
        arrived = torch.empty(sum(received), dtype=torch.uint8)
        leaving = torch.frombuffer(bytearray(b"".join(parcels) or b" "), dtype=torch.uint8)
        leaving = leaving[: sum(sent)]
        dist.all_to_all_single(arrived, leaving, received, sent, group=self._group)
        return [part.numpy().tobytes() for part in arrived.split(received)]

    def gather(self, data: bytes) -> list[bytes]:
        """What every rank has, in the order of the ranks."""
        return self.exchange([data] * self.size)

    def add(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks, each of which has as many numbers."""
        parts = [np.frombuffer(part) for part in self.gather(np.array(numbers, float).tobytes())]
        return np.sum(parts, axis=0).tolist()

    def total(self, measured: Measured) -> Measured:
        """The divergence of all ranks' rows together, for one controller on each rank."""
        total, rows = self.add(measured)
        return Measured(total, int(rows))

    def advantages(
        self, compute: Compute, columns: Mapping[str, Scores], groups: Sequence[Hashable]
    ) -> Advantages[Any]:
        """Advantages over groups whose members are on several ranks.

        Args:
            compute: such as `lambda columns, keys: grpo(columns["reward"], keys)`; runs on every
                rank, over the rows of all of them.
            columns: of this rank's rows, such as `outcomes.rewards`; the same names on each rank.
            groups: keys of this rank's rows: text or integers.

        Returns:
            Arrays for the rows of this rank; the report is about all ranks.

        Raises:
            ValueError: on every rank, where one of them has columns that are no numbers, or of
                another length than its keys, or other columns than the rest.

        Example:
            >>> from guerdon.tokens import grpo
            >>> import tempfile, torch.distributed as dist
            >>> file = tempfile.mkdtemp() + "/init"
            >>> dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
            >>> found = Ranks().advantages(
            ...     lambda columns, keys: grpo(columns["reward"], keys),
            ...     {"reward": [1.0, 0.0]},
            ...     ["a", "a"],
            ... )
            >>> [round(value, 3) for value in found.values.tolist()]
            [0.707, -0.707]
            >>> dist.destroy_process_group()
        """
        told = [decode_msgpack(p, _Table) for p in self.gather(_packed(columns, groups))]
        problems = [f"rank {r}: {table.problem}" for r, table in enumerate(told) if table.problem]
        if not problems and len({frozenset(table.values) for table in told}) > 1:
            problems = ["the ranks have different columns"]
        if problems:
            raise ValueError("; ".join(problems))
        merged = {
            name: Column(
                np.concatenate([np.frombuffer(table.values[name]) for table in told]),
                np.concatenate([np.frombuffer(table.masks[name], np.bool_) for table in told]),
            )
            for name in columns
        }
        found = compute(merged, [key for table in told for key in table.keys])
        start = sum(len(table.keys) for table in told[: self.rank])
        mine = slice(start, start + len(told[self.rank].keys))
        return found._replace(values=found.values[mine], used=found.used[mine])


class _Table(msgspec.Struct):
    """The rows of one rank."""

    keys: list[Any] = []
    values: dict[str, bytes] = {}
    """float64."""
    masks: dict[str, bytes] = {}
    """One byte per row."""
    problem: str = ""
    """Why there are no rows: told to all ranks, as they wait for each other."""


def _packed(columns: Mapping[str, Scores], groups: Sequence[Hashable]) -> bytes:
    try:
        keys = [_plain(key) for key in groups]
        read = {name: _column(column, len(keys)) for name, column in columns.items()}
        table = _Table(
            keys,
            {name: column.values.tobytes() for name, column in read.items()},
            {name: column.mask.tobytes() for name, column in read.items()},
        )
        return encode_msgpack(table)
    except Exception as error:
        return encode_msgpack(_Table(problem=f"{type(error).__name__}: {error}"))


def _column(scores: Scores, rows: int) -> Column:
    if isinstance(scores, Column):
        found = Column(scores.values.astype(np.float64), scores.mask.astype(np.bool_))
    else:
        values = on_host(scores).astype(np.float64)
        found = Column(values, np.ones(len(values), dtype=np.bool_))
    if found.values.shape != (rows,):
        raise ValueError(f"a column of the shape {found.values.shape} for {rows} group keys")
    return found


def _plain(key: Any) -> Hashable:
    """A key that may travel: a number of numpy or torch as one of Python."""
    plain = key.item() if hasattr(key, "item") else key
    hash(plain)
    return plain


def _torch() -> Any:
    import torch

    return torch


def _distributed() -> Any:
    import torch.distributed

    return torch.distributed
