"""Served requests and closed loops: what a request alone takes by hand, labels that are wrong, plans that are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.errors import InputError
from hwsim.fit.calibrate import calibrate
from hwsim.fit.tables.closed_loop import _Asked, _formats, serving_e2e
from hwsim.fit.tables.requests import vllm_requests_e2e
from hwsim.fit.validate import points, validate
from hwsim.job import Job, run
from hwsim.serving.requests import make_requests
from hwsim.serving.service import Service, serve

REQUEST = {
    "hw": "h100-ideal", "model": "llama-3.1-8b", "tp": 1, "max_num_seqs": 8, "max_num_batched_tokens": 2048, "dtype": "bfloat16",
    "arrival_s": 0.0, "prompt_tokens": 500, "output_tokens": 11, "queue_s": 0.0, "ttft_s": 1.0, "decode_s": 1.0, "tpot_s": 0.1,
}  # fmt: skip
SERVER = {
    "gpu": "h100-ideal", "fw": "vllm", "model": "llama-3.1-8b", "precision": "fp8", "gemm_quant_mode": "fp8", "mode": "agg",
    "isl": 1, "osl": 2, "concurrency": 1, "tp_size": 1, "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1, "moe_ep_size": 1,
    "ttft_s": 0.01, "tpot_s": 0.01,
}  # fmt: skip


def rows(base: dict[str, Any], *changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([base | change for change in changes or ({},)])


def lines(folder: Path, name: str, table: pd.DataFrame, **options: Any) -> list[dict[str, Any]]:
    table.to_csv(folder / f"{name}.csv", index=False)
    found: list[dict[str, Any]] = validate(folder, **options)["rows"]
    return found


def test_a_request_alone_takes_its_prompt_and_its_steps(tmp_path: Path) -> None:
    """An ideal device has no host. Requests that are as much too slow as too fast have the right mean."""
    marks = run("llama-3.1-8b", "h100-ideal", Job(prompt=500, output=11)).marks
    first, step = marks["ttft_s"], marks["tpot_s"]
    slow, fast = ({"ttft_s": part * first, "tpot_s": part * step, "decode_s": part * 10 * step} for part in (1.6, 0.4))
    found = lines(tmp_path, "vllm_requests_e2e", rows(REQUEST, slow, fast | {"arrival_s": 60.0}))
    assert [(row["quantity"], row["family"], row["n"]) for row in found] == [("latency", "e2e", 2)] * 3
    assert [row["stack"] for row in found] == [f"vllm llama-3.1-8b tp=1 {name}" for name in ("TTFT", "TPOT", "E2E")]
    assert [row["mape"] for row in found] == pytest.approx([0.0] * 3, abs=1e-9)
    (row, *_) = lines(tmp_path, "vllm_requests_e2e", rows(REQUEST, {"ttft_s": 1.25 * first}))
    assert (row["bias"], row["mape"]) == (pytest.approx(-0.2), pytest.approx(0.2))
    assert len(points(tmp_path)) == 3


@pytest.mark.parametrize(("label", "under_way", "served"), [(1, 4, 4), (1, 3, 4), (4, 5, 4), (8, 3, 8), (1, 1, 1)])
def test_a_run_has_at_least_as_many_sequences_as_its_rows_show_at_once(label: int, under_way: int, served: int) -> None:
    """Requests all arrive at 0; the first are together from 0 to 2 s, each other one after the one before."""
    late = [max(0.0, 2.0 * (place - under_way + 1)) for place in range(8)]
    table = rows(REQUEST | {"max_num_seqs": label}, *({"queue_s": wait, "ttft_s": wait + 1.0} for wait in late))
    group = next(vllm_requests_e2e(table))
    assert group.price is not None
    found = group.price(load_device("h100-ideal"))
    job = Job(stack="vllm", weights="bf16", parallel="tp=1")
    limits = Service(max_seqs=served, max_batched_tokens=2048)
    alone = serve("llama-3.1-8b", "h100-ideal", make_requests([0.0] * 8, [500] * 8, [11] * 8), limits, job)
    assert found == pytest.approx([alone.table["ttft_s"].mean()] * 8)


def test_single_tokens_have_no_time_between_tokens() -> None:
    groups = list(vllm_requests_e2e(rows(REQUEST, {}, {"output_tokens": 1, "decode_s": 0.0, "tpot_s": np.nan})))
    assert [group.rows for group in groups] == [2, 1, 2]
    alone = vllm_requests_e2e(rows(REQUEST, {"output_tokens": 1}))
    assert [group.stack.rpartition(" ")[2] for group in alone] == ["TTFT", "E2E"]


def test_runs_that_nobody_can_serve_are_counted(tmp_path: Path) -> None:
    changes = [{"model": "voodoo"}, {"model": "bert-base"}, {"dtype": "posit"}, {"hw": "voodoo"}, {"model": "llama-3.1-405b"}]
    found = lines(tmp_path, "vllm_requests_e2e", rows(REQUEST, *changes))
    assert [row["mape"] for row in found] == [None] * 15
    assert {row["n"] for row in found} == {1}


@pytest.mark.parametrize(
    ("name", "base", "change", "word"),
    [
        ("vllm_requests_e2e", REQUEST, {"arrival_s": -1.0}, "arrival -1"),
        ("vllm_requests_e2e", REQUEST, {"arrival_s": "noon"}, "noon"),
        ("vllm_requests_e2e", REQUEST, {"queue_s": np.nan}, "queue nan"),
        ("vllm_requests_e2e", REQUEST, {"ttft_s": 0.0}, "ttft 0"),
        ("vllm_requests_e2e", REQUEST, {"tpot_s": np.nan}, "tpot nan"),
        ("vllm_requests_e2e", REQUEST, {"decode_s": -0.5}, "decode -0.5"),
        ("vllm_requests_e2e", REQUEST, {"prompt_tokens": 0}, "prompt 0"),
        ("vllm_requests_e2e", REQUEST, {"prompt_tokens": 1.5}, "prompt_tokens"),
        ("vllm_requests_e2e", REQUEST, {"output_tokens": np.inf}, "output inf"),
        ("vllm_requests_e2e", REQUEST, {"tp": 1.5}, "tp 1.5"),
        ("vllm_requests_e2e", REQUEST, {"tp": 0}, "tp 0"),
        ("vllm_requests_e2e", REQUEST, {"max_num_seqs": "many"}, "many"),
        ("vllm_requests_e2e", REQUEST, {"max_num_batched_tokens": 0}, "max_num_batched_tokens 0"),
        ("serving_e2e", SERVER, {"ttft_s": -1.0}, "measured -1"),
        ("serving_e2e", SERVER, {"tpot_s": np.nan}, "measured nan"),
        ("serving_e2e", SERVER, {"tpot_s": "soon"}, "soon"),
        ("serving_e2e", SERVER, {"isl": 0}, "isl 0"),
        ("serving_e2e", SERVER, {"osl": 1.5}, "osl 1.5"),
        ("serving_e2e", SERVER, {"concurrency": 1e12}, "concurrency 1"),
        ("serving_e2e", SERVER, {"mode": "disagg", "isl": -3}, "isl -3"),
        ("serving_e2e", SERVER, {"tp_size": "two"}, "two"),
    ],
)
def test_rows_that_nobody_can_have_measured_are_refused_by_name(tmp_path, name, base, change, word) -> None:
    with pytest.raises(InputError, match=name) as caught:
        lines(tmp_path, name, rows(base, {}, change))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_closed_loop_of_one_is_one_request_after_the_other_and_is_simulated_when_asked(tmp_path: Path) -> None:
    """One token in and two out have one length only: a prefill, then a decode step."""
    marks = run("llama-3.1-8b", "h100-ideal", Job(prompt=1, output=2, weights="fp8", activations="fp8", kv="fp8")).marks
    times = {"ttft_s": 2.0 * marks["ttft_s"], "tpot_s": 1.25 * marks["tpot_s"]}
    table = rows(SERVER, times, times)
    assert [(row["mape"], row["n"]) for row in lines(tmp_path, "serving_e2e", table)] == [(None, 2)] * 2
    said: list[str] = []
    first, later = lines(tmp_path, "serving_e2e", table, say=said.append)
    assert (first["stack"], first["quantity"], first["n"]) == ("vllm llama-3.1-8b TTFT", "latency", 2)
    assert (first["bias"], later["bias"]) == (pytest.approx(-0.5), pytest.approx(-0.2))
    assert said == ["h100-ideal vllm llama-3.1-8b fp8: 1 of 1"]  # equal rows are one simulation, for both quantities


def test_rows_that_do_not_fit_are_set_apart(tmp_path: Path) -> None:
    table = rows(SERVER | {"model": "llama-3.1-70b"}, {}, {"tp_size": 2}, {"tp_size": 3})  # 80 GiB hold 70 GB, but no cache of it
    found = lines(tmp_path, "serving_e2e", table.assign(isl=100_000), say=lambda _: None)
    apart = "without rows that cannot be served"
    assert [(row["subset"], row["n"], row["mape"] is None) for row in found] == [("all", 3, True), (apart, 1, False)] * 2


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({}, True),
        ({"moe_tp_size": 8}, True),  # Llama has no experts
        ({"attention_dp_size": np.nan, "moe_tp_size": np.nan, "moe_ep_size": np.nan}, True),
        ({"model": "deepseek-ai/DeepSeek-R1", "tp_size": 8, "moe_tp_size": 2, "moe_ep_size": 4}, True),
        ({"model": "deepseek-ai/DeepSeek-R1", "attention_dp_size": 8, "moe_ep_size": 8}, True),
        ({"model": "deepseek-ai/DeepSeek-R1", "tp_size": 8, "moe_tp_size": 2}, False),
        ({"tp_size": 16}, False),
        ({"tp_size": 0}, False),
        ({"tp_size": 1.5}, False),
        ({"tp_size": np.nan}, False),
        ({"pp_size": 2}, False),
        ({"attention_dp_size": 1e9}, False),
        ({"mode": "disagg"}, False),
        ({"precision": "fp2"}, False),
        ({"model": "Qwen/Qwen3.5-397B-A17B"}, False),
        ({"model": "bert-base"}, False),
    ],
)
def test_plans_that_divide_the_network_are_simulated_and_others_counted(change: dict[str, Any], asked: bool) -> None:
    first, later = serving_e2e(rows(SERVER, change))
    assert [group.simulated is not None for group in (first, later)] == [asked, asked]
    assert first.rows == later.rows == 1


@pytest.mark.parametrize(
    ("model", "precision", "gemm", "formats"),
    [
        ("llama-3.1-70b", "fp8", "fp8", {"weights": "fp8", "activations": "fp8", "kv": "fp8"}),
        ("llama-3.1-70b", "fp4", "nvfp4", {"weights": "nvfp4", "activations": "nvfp4", "kv": "fp8"}),
        ("llama-3.1-8b", "fp8", "fp8_block", {"weights": "fp8_block", "activations": "fp8", "kv": "fp8"}),
        ("llama-3.1-8b", "bf16", np.nan, {}),
        ("llama-3.1-8b-fp8", "fp8", "fp8", {}),
        ("gpt-oss-120b", "fp4", "nvfp4", {"kv": "fp8"}),
        ("deepseek-v3", "fp8", "fp8", {}),  # the config's blocks, and a cache in 16 bit
        ("deepseek-v3", "fp4", "nvfp4", {"weights": "nvfp4", "activations": "nvfp4", "kv": "fp8"}),
        ("deepseek-r1-nvfp4", "fp4", "nvfp4", {}),
        ("kimi-k2.5", "int4", "int4_wo", {}),
    ],
)
def test_formats_are_those_of_the_row_or_of_the_network(model: str, precision: str, gemm: Any, formats: dict[str, str]) -> None:
    assert _formats(load_model(model), precision, gemm) == formats


def test_lengths_are_drawn_from_four_fifths_up_and_do_not_change() -> None:
    (row,) = (row for _, row in rows(SERVER, {"isl": 1000, "osl": 51, "concurrency": 64}).iterrows())
    first, again = (_Asked.of(load_model("llama-3.1-8b"), row).requests() for _ in range(2))
    assert len(first) == 640
    assert (first.prompt.min(), first.prompt.max()) == (800, 1000)
    assert (first.output.min(), first.output.max()) == (41, 51)
    assert first.prompt.tolist() == again.prompt.tolist()


def test_servers_are_never_fitted(tmp_path: Path) -> None:
    for name, base in (("vllm_requests_e2e", REQUEST), ("serving_e2e", SERVER)):
        rows(base).to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(InputError, match="no rows of GPUs"):
            calibrate([tmp_path / f"{name}.csv"])
