"""The plot of `guerdon bench`: latency and throughput against load, closed and open loops apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guerdon.errors import MissingExtra

if TYPE_CHECKING:
    from guerdon.remote.load import Level

LATENCIES = ("p50", "p90", "p99", "max")
LOADS = {"closed": "callers", "open": "requests per second asked for"}


def draw(levels: Sequence[Level], title: str, path: Path) -> None:
    """Write a PNG with one row of panels per kind of loop.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "bench", "--plot") from None
    modes = [mode for mode in LOADS if any(level.mode == mode for level in levels)]
    figure: Any = Figure(figsize=(10, 1 + 3.5 * len(modes)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(len(modes), 2, squeeze=False)
    for (left, right), mode in zip(axes, modes, strict=True):
        own = [level for level in levels if level.mode == mode]
        _draw_latency(left, own, LOADS[mode])
        _draw_throughput(right, own, LOADS[mode])
    figure.savefig(path, format="png", dpi=120)


def _draw_latency(axis: Any, levels: Sequence[Level], label: str) -> None:
    answered = [level for level in levels if level.latency_ms]
    for name in LATENCIES:
        values = [level.latency_ms[name] for level in answered]
        axis.plot([level.load for level in answered], values, marker="o", label=name)
    axis.set(xlabel=label, ylabel="latency, ms", xscale="log", yscale="log")
    if answered:
        axis.legend()
    axis.grid(alpha=0.3)


def _draw_throughput(axis: Any, levels: Sequence[Level], label: str) -> None:
    loads = [level.load for level in levels]
    axis.plot(loads, [level.samples_per_second for level in levels], marker="o", label="samples/s")
    errors = [sum(level.errors.values()) / level.seconds for level in levels]
    if any(errors):
        axis.plot(loads, errors, marker="x", color="red", label="requests refused/s")
    axis.set(xlabel=label, ylabel="per second", xscale="log", ylim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
