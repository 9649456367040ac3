"""Seconds of one call: the median of some samples, each of as many rounds as make it last about `SAMPLE_S`, after a warm-up.

On a GPU between two CUDA events, around replays of a CUDA graph of several rounds (no launches by the host in between) or around
calls launched one by one; on a CPU by its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import torch

from hwsim.fit.measure.calls import Call

Timer = Callable[[int], float]  # rounds -> seconds of all of them

SAMPLES = 7
SAMPLE_S = 3e-3
MOST_ROUNDS = 200
WAKE_S = 0.5
GRAPH_CALLS = 24


def seconds(calls: Sequence[Call], device: str, graph: bool) -> tuple[float, str]:
    """Seconds of one call, and how it was launched: "graph", "eager" or "cpu". What cannot be captured is launched eagerly."""
    if device == "cpu":
        return _median(_host_timer(calls)) / len(calls), "cpu"
    timer = _event_timer(lambda: run(calls))
    if graph:
        captured = _captured(calls, min(_rounds(timer), max(1, GRAPH_CALLS // len(calls))))
        if captured is not None:
            return captured, "graph"
    return _median(timer) / len(calls), "eager"


def wake() -> None:
    """Keep the GPU busy for a while: one that was idle begins at a low clock."""
    x, start = torch.randn(2048, 2048, device="cuda"), perf_counter()
    while perf_counter() - start < WAKE_S:
        x @ x
        torch.cuda.synchronize()


def run(calls: Sequence[Call]) -> None:
    """One round."""
    for call in calls:
        call()


def _median(timer: Timer) -> float:
    """Seconds of one round."""
    rounds = _rounds(timer)
    return median(timer(rounds) / rounds for _ in range(SAMPLES))


def _rounds(timer: Timer) -> int:
    """How many make a sample; the call before the one that is looked at warms up."""
    timer(1)
    return min(max(1, round(SAMPLE_S / max(timer(1), 1e-9))), MOST_ROUNDS)


def _host_timer(calls: Sequence[Call]) -> Timer:
    def timer(rounds: int) -> float:
        start = perf_counter()
        for _ in range(rounds):
            run(calls)
        return perf_counter() - start

    return timer


def _event_timer(one: Callable[[], object]) -> Timer:
    def timer(rounds: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(rounds):
            one()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return timer


def _captured(calls: Sequence[Call], rounds: int) -> float | None:
    """Seconds of one call in a graph of `rounds` rounds; None where it cannot be captured, but memory that runs out is raised."""
    graph = torch.cuda.CUDAGraph()
    try:
        _warm_up_aside(calls)
        with torch.cuda.graph(graph):
            for _ in range(rounds):
                run(calls)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return _median(_event_timer(graph.replay)) / (rounds * len(calls))


def _warm_up_aside(calls: Sequence[Call]) -> None:
    """One round on another stream, as PyTorch asks for before a capture: libraries set themselves up at their first call."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run(calls)
    torch.cuda.current_stream().wait_stream(aside)
