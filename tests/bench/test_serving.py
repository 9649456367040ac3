"""How fast requests are served: `make bench`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwsim.serving import drawn_requests, read_trace, serve

TRACES = Path(os.environ.get("HWSIM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "traces"


def test_1000_requests(benchmark):
    """Llama 3.1 8B on one H100, 5 requests a second of some 260 tokens in and 250 out, Poisson."""
    asked = drawn_requests(1000, 5.0, "poisson", "gaussian:mean=260,sd=100", "gaussian:mean=250,sd=100", 1)
    served = benchmark(lambda: serve("llama-3.1-8b", "h100", asked))
    assert served.completed == 1000
    benchmark.extra_info["steps"] = int(served.steps["steps"].sum())


def test_an_hour_of_conversations(benchmark):
    """Azure's trace of 2023, 19,366 requests, on one H100."""
    file = TRACES / "azure2023_conv.csv"
    if not file.is_file():
        pytest.skip(f"no traces in {TRACES}; set HWSIM_DATA to the folder that holds traces/")
    served = benchmark.pedantic(lambda: serve("llama-3.1-8b", "h100", read_trace(file)), rounds=2)
    assert served.completed == len(served.requests)
    benchmark.extra_info["steps"] = int(served.steps["steps"].sum())
