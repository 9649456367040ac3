"""`hwsim measure`: what can be known without PyTorch always, what it really does where PyTorch is."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from hwsim.fit.measure import power, run
from hwsim.fit.measure.grid import COPIES, CPU, GPU, Grid, needed, shapes
from hwsim.fit.read import groups
from tests.command import document, hwsim, refused

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch: pip install hwsim[measure]")
TINY = Grid(
    tokens=(1, 8), linears=((64, 32),), classic_tokens=(2,), classic_linears=((32, 64),), heads=((4, 2, 16),),
    prefills=((2, 8),), decodes=((3, 9),), vectors=((4, 16),),
)  # fmt: skip


def machine(**changed) -> run.Machine:
    known = {
        "device": "cuda", "name": "Voodoo 5", "room": 1e12, "bf16": True, "torch": "2.99", "meter": None, "no_meter": "no meter",
        "facts": {"device": "Voodoo 5"},
    }  # fmt: skip
    return run.Machine(**(known | changed))


def timed(table, row, _machine):
    """A row as if it were measured: at 600 TFLOP/s or 2.5 TB/s, after 5 us."""
    operations = 2.0 * row["m"] * row["n"] * row["k"] if "m" in row else 0.0
    read = needed(table, row) / (COPIES if table == "gemm_llm_kernels" else 1)
    return {**row, "latency_s": 5e-6 + max(operations / 6e14, read / 2.5e12), "launch": "graph"}


@pytest.fixture
def without_gpu(monkeypatch):
    """`measure` as on a GPU, with times that nothing measured."""
    monkeypatch.setattr(run, "_machine", lambda _device: machine())
    monkeypatch.setattr(run, "_timed", timed)


def read(tmp_path, table, rows):
    path = tmp_path / f"{table}.csv"
    run.frame(table, [timed(table, row, None) for row in rows], "H200", "2.99").to_csv(path, index=False)
    return list(groups(path))


@pytest.mark.parametrize(("grid", "families"), [(GPU, 8), (CPU, 4)])
@pytest.mark.parametrize("bf16", [True, False])
def test_the_readers_know_every_table_and_find_shape_families_to_hold_out(tmp_path, grid, families, bf16):
    for table, rows in shapes(grid, bf16).items():
        found = read(tmp_path, table, rows)
        assert sum(group.rows for group in found) == len(rows)
        for group in found:
            assert len(set(group.label)) >= families
            assert not any(out.any() for name, out in group.excluded.items() if name.startswith("without"))


def test_columns_arrive_as_arguments(tmp_path):
    tables = shapes(TINY, bf16=True)
    (gemm,) = read(tmp_path, "gemm_llm_kernels", tables["gemm_llm_kernels"])
    assert (gemm.stack, gemm.format, gemm.arguments["copies"]) == ("pytorch", "bf16", COPIES)
    assert [gemm.arguments[name].tolist() for name in "mnk"] == [[1, 8], [64, 64], [32, 32]]
    (prefill,) = read(tmp_path, "attention_prefill", tables["attention_prefill"])
    (decode,) = read(tmp_path, "attention_decode", tables["attention_decode"])
    assert (prefill.arguments["q_len"][0], prefill.arguments["kv_len"][0]) == (8, 8)
    assert [decode.arguments[name][0] for name in ("batch", "kv_len", "heads", "kv_heads", "head_dim")] == [3, 9, 4, 2, 16]
    classic = read(tmp_path, "gemm_fp32_classic", shapes(TINY, bf16=False)["gemm_fp32_classic"])
    assert {(group.stack, group.format) for group in classic} == {("pytorch", "fp16"), ("pytorch", "fp32")}


def test_a_gpu_without_bfloat16_has_no_attention():
    assert list(shapes(TINY, bf16=False)) == ["gemm_fp32_classic", "vector_ops_fp32"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("gemm_llm_kernels", 2 * (6 * 64 * 32 + 32 + 64)),
        ("gemm_fp32_classic", 4 * (32 * 64 + 2 * 64 + 2 * 32)),
        ("attention_prefill", 2 * 2 * (2 * 8 * 2 * 16 + 2 * 8 * 4 * 16)),
        ("attention_decode", 2 * 3 * (2 * 9 * 2 * 16 + 2 * 1 * 4 * 16)),
        ("vector_ops_fp32", 4 * 3 * 4 * 16),
    ],
)
def test_bytes_by_hand(table, expected):
    assert needed(table, shapes(TINY, bf16=True)[table][0]) == expected


def test_without_pytorch_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install hwsim[measure]" in refused("measure", "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["vector_ops_fp32.csv", "gemm_llm_kernels.parquet", "gemm_power.csv", "measure.json"])
def test_what_is_there_already_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    assert name in refused("measure", "--out", str(tmp_path), "--device", "cpu")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_bad_options_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a folder" in refused("measure", "--out", str(tmp_path / "file"))
    assert "cuda or cpu" in refused("measure", "--out", str(tmp_path / "new"), "--device", "tpu")


@pytest.mark.usefixtures("without_gpu")
def test_measure_then_fit_then_validate(tmp_path):
    data, arch, fragment = tmp_path / "data", tmp_path / "arch", tmp_path / "fragment.yaml"
    status, out, err = hwsim("measure", "--out", str(data))
    assert (status, err) == (0, "")
    assert "gemm_power: not measured, no meter" in out
    assert {row["mape"] for row in document("validate", str(data))["rows"]} == {None}
    arch.mkdir()
    (arch / "mine.yaml").write_text("extends: h100\naliases: [Voodoo 5]\nsource: a test\n")
    status, _, err = hwsim("fit", str(data / "gemm_llm_kernels.csv"), "--out", str(fragment), "--arch", str(arch))
    assert (status, err) == (0, "")
    before = document("validate", str(data), "--arch", str(arch))["rows"]
    (arch / "mine.yaml").write_text((arch / "mine.yaml").read_text() + fragment.read_text())
    after = document("validate", str(data), "--arch", str(arch))["rows"]
    errors = [next(row["mape"] for row in rows if row["table"] == "gemm_llm_kernels") for rows in (before, after)]
    assert errors[1] < min(errors[0], 0.15)
    assert yaml.safe_load(fragment.read_text())["kernels"]["gemm"][0]["stacks"] == ["pytorch"]


@needs_torch
def test_shapes_too_big_are_counted_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CPU", TINY)
    monkeypatch.setattr(run, "_CPU_ROOM", 1000.0)
    status, out, _ = hwsim("measure", "--out", str(tmp_path), "--device", "cpu")
    assert status == 0
    assert "gemm_llm_kernels: 0 rows, 2 shapes skipped: too big for the memory" in out
    assert json.loads((tmp_path / "measure.json").read_text())["tables"]["gemm_llm_kernels"]["skipped_for_memory"] == 2
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["measure.json", "vector_ops_fp32.csv"]


@pytest.mark.usefixtures("without_gpu")
def test_an_interrupted_run_leaves_whole_tables_only(tmp_path, monkeypatch):
    def interrupted(table, row, machine):
        if table == "gemm_fp32_classic":
            raise KeyboardInterrupt
        return timed(table, row, machine)

    monkeypatch.setattr(run, "_timed", interrupted)
    status, _, _ = hwsim("measure", "--out", str(tmp_path))
    assert status == 130
    assert [path.name for path in tmp_path.iterdir()] == ["gemm_llm_kernels.csv"]
    assert len(pd.read_csv(tmp_path / "gemm_llm_kernels.csv")) == len(GPU.tokens) * len(GPU.linears)


@pytest.mark.usefixtures("without_gpu")
def test_power_is_that_of_rows_over_100_us(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_machine", lambda _device: machine(meter=power.Meter(lambda: 300.0, 700.0, "1"), no_meter=""))
    monkeypatch.setattr(run, "_watts", lambda row, _machine, board: {**row, "power_w": board.read(), "power_limit_w": 700.0})
    assert hwsim("measure", "--out", str(tmp_path))[0] == 0
    (group,) = groups(tmp_path / "gemm_power.csv")
    assert set(group.measured) == {300.0}
    assert group.rows == len(pd.read_csv(tmp_path / "gemm_power.csv"))
    assert np.all(group.arguments["seconds"] > 100e-6)
    assert set(group.arguments["tdp"]) == {700.0}


def test_the_meter_is_read_after_it_settled(monkeypatch):
    """Batches of 50 ms: 1 ms calls, 5 a round, 10 rounds; read in those that begin at 1.00 to 1.45 s."""
    now, launched = [0.0], []
    monkeypatch.setattr(power, "perf_counter", lambda: now[0])

    def wait():
        now[0] = round(now[0] + 0.05, 9)

    watts, seconds = power.watched(lambda: now[0], lambda: launched.append(1), wait, 1e-3, 5)
    assert len(launched) == 300
    assert watts == pytest.approx((1.00 + 1.45) / 2)
    assert seconds == pytest.approx(1e-3)


def test_without_a_meter_the_reason_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert power.meter("x") == (None, "nvidia-ml-py is not installed")
    library = ModuleType("pynvml")
    library.NVMLError = type("NVMLError", (Exception,), {})

    def absent():
        raise library.NVMLError("no driver")

    library.nvmlInit = absent
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert power.meter("x") == (None, "NVML: no driver")


def test_the_meter_is_that_of_the_gpu(monkeypatch):
    library = ModuleType("pynvml")
    library.NVMLError = type("NVMLError", (Exception,), {})
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda uuid: {"GPU-x": "board"}[uuid]
    library.nvmlDeviceGetEnforcedPowerLimit = lambda board: {"board": 700000}[board]
    library.nvmlDeviceGetPowerUsage = lambda board: {"board": 123400}[board]
    library.nvmlSystemGetDriverVersion = lambda: b"580.1"
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found, why = power.meter("x")
    assert (found.read(), found.limit_w, found.driver, why) == (123.4, 700.0, "580.1", "")


@needs_torch
def test_calls_do_what_the_row_says():
    from hwsim.fit.measure.calls import calls

    tables = shapes(TINY, bf16=True)
    made = {table: calls(table, rows[0], "cpu") for table, rows in tables.items()}
    assert {table: (len(one), tuple(one[0]().shape)) for table, one in made.items()} == {
        "gemm_llm_kernels": (COPIES, (1, 64)), "gemm_fp32_classic": (1, (2, 32)), "attention_prefill": (1, (2, 4, 8, 16)),
        "attention_decode": (1, (3, 4, 1, 16)), "vector_ops_fp32": (1, (4, 16)),
    }  # fmt: skip
    assert len({call.args[1].data_ptr() for call in made["gemm_llm_kernels"]}) == COPIES
    assert all(calls("vector_ops_fp32", row, "cpu")[0]().shape == (4, 16) for row in tables["vector_ops_fp32"])


@needs_torch
def test_the_clock_counts_one_call():
    from time import sleep

    from hwsim.fit.measure.clock import seconds

    found, launch = seconds([lambda: sleep(1e-3)] * 2, "cpu", graph=True)
    assert launch == "cpu"
    assert 1e-3 <= found < 1e-2


class FakeGpu:
    """As much of torch.cuda as the clock uses: a call takes 10 us, 100 us where the host launches it."""

    def __init__(self, monkeypatch, refuses=None):
        import torch

        self.now, self.each, self.captured, self.refuses = 0.0, 100e-6, 0, refuses
        for name in ("Event", "CUDAGraph", "graph", "Stream", "stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def call(self):
        if self.each:
            self.now += self.each
        else:
            self.captured += 1

    def Event(self, enable_timing):  # noqa: N802
        event = SimpleNamespace(synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: 1e3 * (end.at - event.at)
        return event

    def CUDAGraph(self):  # noqa: N802
        return SimpleNamespace(replay=lambda: setattr(self, "now", self.now + 10e-6 * self.captured))

    @contextmanager
    def graph(self, _graph):
        if self.refuses:
            raise self.refuses
        self.each = 0.0
        yield
        self.each = 100e-6

    def Stream(self):  # noqa: N802
        return SimpleNamespace(wait_stream=lambda _other: None)

    current_stream = Stream

    def stream(self, _stream):
        return nullcontext()


@needs_torch
@pytest.mark.parametrize(("graph", "refuses", "expected"), [
    (True, None, (10e-6, "graph")), (False, None, (100e-6, "eager")), (True, RuntimeError("no capture"), (100e-6, "eager")),
])  # fmt: skip
def test_a_gpu_is_timed_by_graphs_or_one_by_one(monkeypatch, graph, refuses, expected):
    from hwsim.fit.measure.clock import GRAPH_CALLS, seconds

    gpu = FakeGpu(monkeypatch, refuses)
    found, launch = seconds([gpu.call] * 6, "cuda", graph)
    assert (found, launch) == (pytest.approx(expected[0]), expected[1])
    assert gpu.captured == (GRAPH_CALLS if launch == "graph" else 0)


@needs_torch
def test_memory_that_runs_out_in_a_capture_is_no_reason_to_launch_eagerly(monkeypatch):
    import torch

    from hwsim.fit.measure.clock import seconds

    gpu = FakeGpu(monkeypatch, torch.cuda.OutOfMemoryError("full"))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        seconds([gpu.call], "cuda", graph=True)


@needs_torch
def test_the_cpu_is_measured_and_validate_lists_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CPU", TINY)
    status, _, err = hwsim("measure", "--out", str(tmp_path), "--device", "cpu")
    assert (status, err) == (0, "")
    said = json.loads((tmp_path / "measure.json").read_text())
    assert said["tables"]["attention_decode"] == {"rows": 1, "skipped_for_memory": 0, "launches": {"cpu": 1}}
    rows = document("validate", str(tmp_path))["rows"]
    assert {row["source_device"] for row in rows} == {said["device"]}
    assert sum(row["n"] for row in rows) == 2 + 1 + 1 + 1 + 8


@needs_torch
def test_without_a_gpu_cuda_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "accepted: cpu" in refused("measure", "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
