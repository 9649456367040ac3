"""Measure every table, write each whole or not at all, and say beside them on what and with what that was."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hwsim.errors import InputError
from hwsim.files import write_text
from hwsim.fit.measure.grid import CPU, GPU, Row, needed, shapes
from hwsim.fit.measure.power import SHORTEST_S, TOKENS, Meter, meter, watched

TABLES = ("gemm_llm_kernels", "gemm_fp32_classic", "attention_prefill", "attention_decode", "vector_ops_fp32", "gemm_power")
DEVICES = ("cuda", "cpu")
_EAGER = ("gemm_fp32_classic", "vector_ops_fp32")  # these tables hold calls that the host launches one by one
_KERNELS = {"gemm_llm_kernels": "torch_linear", "gemm_power": "torch_linear"}
_CPU_ROOM = 1e9  # bytes that a rehearsal may take
_GPU_ROOM = 0.8  # of the memory that is free; the rest is for results and for what the library keeps


@dataclass(frozen=True)
class Machine:
    """What is measured: `room` in bytes, `meter` where watts can be read, `facts` as measure.json states them."""

    device: str
    name: str
    room: float
    bf16: bool
    torch: str
    meter: Meter | None
    no_meter: str
    facts: Mapping[str, Any]


def measure(out: Path, device: str, say: Callable[[str], object]) -> None:
    """Tables of this machine's `device` ("cuda" or "cpu") and measure.json into the folder `out`; `say` gets a line for each.

    InputError without PyTorch or such a device, and where one of the files is there already.
    """
    if device not in DEVICES:
        raise InputError(f"--device: {device[:40]!r}; accepted: {' or '.join(DEVICES)}")
    refuse_existing(out)
    machine = _machine(device)
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    for table, rows in shapes(CPU if device == "cpu" else GPU, machine.bf16).items():
        found, done[table] = _measured(table, rows, machine)
        _write(out, table, found, machine, say, f", {done[table]['skipped_for_memory']} shapes skipped: too big for the memory")
        if table == "gemm_llm_kernels" and machine.meter is not None:
            watts = [_watts(row, machine, machine.meter) for row in found if _long(row)]
            done["gemm_power"] = {"rows": len(watts)}
            _write(out, "gemm_power", watts, machine, say)
    absent = _absent(machine)
    for table, why in absent.items():
        say(f"{table}: not measured, {why}")
    write_text(out / "measure.json", json.dumps({**machine.facts, "tables": done, "not_measured": absent}, indent=1) + "\n")
    say(f"wrote {out / 'measure.json'}")


def refuse_existing(out: Path) -> None:
    """InputError where `out` is no folder, or one of the files is there: nobody's measurements are overwritten."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder; accepted: a folder, which is made where there is none")
    names = [f"{table}{ending}" for table in TABLES for ending in (".csv", ".parquet")]
    there = [name for name in (*names, "measure.json") if (out / name).exists()]
    if there:
        raise InputError(f"--out: {out / there[0]} is there already; accepted: a folder without it")


def frame(table: str, found: Iterable[Row], name: str, torch: str) -> pd.DataFrame:
    """Rows as the reader of `table` wants them: with the name of the device and the version of PyTorch in its columns."""
    rows = list(found)
    if table in _EAGER:
        software = f"PyTorch {torch}"
        return pd.DataFrame([{"source": "hwsim measure", "device": name, **row, "software": software} for row in rows])
    kernel = _KERNELS.get(table, "torch_sdpa")
    return pd.DataFrame([{"gpu": name, "fw": "pytorch", "fw_version": torch, "kernel_source": kernel, **row} for row in rows])


def _write(out: Path, table: str, found: Sequence[Row], machine: Machine, say: Callable[[str], object], more: str = "") -> None:
    """The table, unless it is empty."""
    if found:
        write_text(out / f"{table}.csv", frame(table, found, machine.name, machine.torch).to_csv(index=False))
    say(f"{table}: {len(found)} rows{more}")


def _machine(device: str) -> Machine:
    try:
        import torch
    except ImportError as error:
        raise InputError("measure: needs PyTorch, which is not installed; accepted: pip install hwsim[measure]") from error
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "hwsim": version("hwsim"), "torch": torch.__version__,
        "python": platform.python_version(), "system": platform.platform(),
    }  # fmt: skip
    if device == "cpu":
        name = f"CPU {platform.machine()}"
        facts |= {"device": name, "threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability()}
        return Machine(device, name, _CPU_ROOM, True, torch.__version__, None, "power is measured on GPUs only", facts)
    if not torch.cuda.is_available():
        raise InputError("--device: PyTorch finds no GPU for cuda; accepted: cpu, or a build of PyTorch with the GPU's driver")
    board = torch.cuda.get_device_properties(0)
    from hwsim.fit.measure.clock import wake

    wake()
    power, why = meter(str(getattr(board, "uuid", "")))
    facts |= {
        "device": board.name, "memory_bytes": board.total_memory, "cuda": torch.version.cuda, "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version(), "driver": power.driver if power else None,
    }  # fmt: skip
    room, bf16 = _GPU_ROOM * torch.cuda.mem_get_info()[0], torch.cuda.get_device_capability() >= (8, 0)
    return Machine(device, board.name, room, bf16, torch.__version__, power, why, facts)


def _measured(table: str, rows: Iterable[Row], machine: Machine) -> tuple[list[Row], dict[str, Any]]:
    """Rows with their time, and how many were left out or launched how."""
    timed = [_timed(table, row, machine) for row in rows]
    found = [row for row in timed if row is not None]
    launches = Counter(row["launch"] for row in found)
    return found, {"rows": len(found), "skipped_for_memory": len(timed) - len(found), "launches": dict(launches)}


def _timed(table: str, row: Row, machine: Machine) -> Row | None:
    """The row with `latency_s`; None where its tensors, or what the library wants beside them, do not fit."""
    import torch

    from hwsim.fit.measure.calls import calls
    from hwsim.fit.measure.clock import seconds

    if needed(table, row) > machine.room:
        return None
    try:
        found, launch = seconds(calls(table, row, machine.device), machine.device, table not in _EAGER)
    except torch.cuda.OutOfMemoryError:
        return None
    return {**row, "latency_s": found, "launch": launch}


def _long(row: Row) -> bool:
    return row["latency_s"] > SHORTEST_S and row["m"] in TOKENS


def _watts(row: Row, machine: Machine, board: Meter) -> Row:
    """The row with the power of the board, and its time while that was read: a board that throttles is slower then."""
    import torch

    from hwsim.fit.measure.calls import calls
    from hwsim.fit.measure.clock import run

    made = calls("gemm_llm_kernels", row, machine.device)
    watts, call_s = watched(board.read, lambda: run(made), torch.cuda.synchronize, row["latency_s"], len(made))
    return {**row, "latency_s": call_s, "power_w": watts, "power_limit_w": board.limit_w, "launch": "eager"}


def _absent(machine: Machine) -> dict[str, str]:
    """Tables that were not even begun, and why."""
    found = {} if machine.meter else {"gemm_power": machine.no_meter}
    if not machine.bf16:
        tables = ("gemm_llm_kernels", "gemm_power", "attention_prefill", "attention_decode")
        found |= dict.fromkeys(tables, "the GPU has no bfloat16")
    return found
