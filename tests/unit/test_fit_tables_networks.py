"""Whole networks and servers: kernels of a small network worked out by hand, the queue, and what is only counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hwsim.catalogue import load_device
from hwsim.cost.chips import chip_of
from hwsim.errors import InputError
from hwsim.fit.calibrate import calibrate
from hwsim.fit.eager import Net, Pass, backward, forward
from hwsim.fit.queue import Kernel, seconds
from hwsim.fit.tables.mlperf import mlperf_inference_llm_v4_1
from hwsim.fit.tables.networks import dnn_e2e_fp32
from hwsim.fit.validate import points, validate
from hwsim.job import Job, estimated
from hwsim.kernels.gemm import gemm
from hwsim.kernels.sets import choose
from hwsim.lowering.batch import decode

GPT = Net(layers=1.0, hidden=8.0, heads=2.0, inner=32.0, vocab=100.0, causal=True)
BERT = Net(layers=1.0, hidden=8.0, heads=2.0, inner=32.0, vocab=100.0, causal=False)
RUN = Pass(batch=2.0, seq=4.0)  # 8 tokens, 64 elements of activations and as many of scores

NETWORK = {
    "device": "Tesla_V100-PCIE-32GB", "model": "gpt2_large", "mode": "inf", "seq": 1024, "batch": 4, "variant": "single_gpu",
    "num_layer": 36, "e2e_latency_s": 0.7, "forward_s": 0.7, "n_layer_cfg": 36, "hidden": 1280, "heads": 20,
}  # fmt: skip
SERVER = {
    "model": "llama2-70b", "gpu": "a100-80gb", "tp": 2, "prompt_tokens": 512, "batch": 1, "output_tokens": 128, "n_runs": 5,
    "prompt_latency_s": 0.2, "tpot_s": 0.055, "e2e_s": 7.2,
}  # fmt: skip
MACHINE = {
    "category": "closed", "model": "mixtral-8x7b", "scenario": "Offline", "samples_per_s": 400.0, "tokens_per_s": 58_000.0,
    "latency_mean_s": 500.0, "accelerator": "NVIDIA H200-SXM-141GB", "accelerators_per_node": 8, "nodes": 1,
}  # fmt: skip


def rows(base: dict[str, Any], *changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([base | change for change in changes])


def products(kernels: list[Kernel], format: str) -> float:
    shapes = [(one.arguments, one.count) for one in kernels if one.format == format and one.family == "gemm"]
    return sum(count * a["m"] * a["n"] * a["k"] * a.get("groups", 1.0) for a, count in shapes)


def moved(kernels: list[Kernel]) -> float:
    return sum(one.count * one.arguments["bytes"] for one in kernels if one.family == "vector")


def test_kernels_of_a_small_gpt_by_hand() -> None:
    found = forward(GPT, RUN)
    assert products(found, "fp32") == 8 * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 8 * 8 * 100  # one layer, head
    assert products(found, "fp32_bmm") == 2 * 4 * (4 * 4 * 4)  # 2 x 2 heads of 4
    embedding, norms, copies, scores, residual, gelu = 2 * 128 + 192, 3 * 128, 4 * 128, 3 * 128, 2 * 192, 6 * 512 + 2 * 768
    assert moved(found) == 4 * (embedding + norms + copies + scores + residual + gelu)
    assert sum(one.count for one in found) == 30


def test_kernels_of_a_small_bert_by_hand() -> None:
    found = forward(BERT, RUN)
    assert products(found, "fp32") == 8 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 32)  # no logits
    embedding, copies, scores, residual, gelu = 3 * 128 + 2 * 192 + 128, 4 * 128, 3 * 128, 2 * (192 + 128), 512
    assert moved(found) == 4 * (embedding + copies + scores + residual + gelu)


def test_layers_are_folded() -> None:
    one, two = (moved(forward(Net(n, 8.0, 2.0, 32.0, 100.0, True), RUN)) for n in (1.0, 2.0))
    assert moved(forward(Net(7.0, 8.0, 2.0, 32.0, 100.0, True), RUN)) == one + 6 * (two - one)


@pytest.mark.parametrize("net", [GPT, BERT])
def test_a_backward_pass_has_twice_the_products_and_adds_up_gradients(net: Net) -> None:
    run = Pass(2.0, 4.0, train=True)
    there, back = forward(net, run), backward(net, run)
    for format in ("fp32", "fp32_bmm"):
        assert products(back, format) == 2 * products(there, format)
    assert moved(back) == 1.5 * moved(there) + 12 * (4 * 64 + 2 * 256 + 800)


def test_training_drops_out_and_bert_then_has_a_head() -> None:
    train = Pass(2.0, 4.0, train=True)
    assert moved(forward(GPT, train)) - moved(forward(GPT, RUN)) == 4 * 2.25 * 4 * 64  # embedding, scores, twice the residual
    assert products(forward(BERT, train), "fp32") - products(forward(BERT, RUN), "fp32") == 8 * (8 * 8 + 8 * 100)


@pytest.mark.parametrize(("net", "saved"), [(GPT, 2 * 128 + 7 * 512 + 512), (BERT, 2 * 128 + 2 * 192)])
def test_a_compiled_network_moves_less(net: Net, saved: int) -> None:
    assert moved(forward(net, RUN)) - moved(forward(net, Pass(2.0, 4.0, fused=True))) == 4 * saved


def test_launches_hide_behind_long_kernels_and_short_kernels_wait_for_the_host() -> None:
    device = load_device("v100-32gb")
    chosen, chip = choose(device.kernels["gemm"], "pytorch", "fp32"), chip_of(device, "fp32")
    assert chosen is not None
    assert chip is not None
    shape = {"m": 4096.0, "n": 4096.0, "k": 4096.0, "a_bytes": 4.0, "w_bytes": 4.0, "o_bytes": 4.0}
    alone = gemm(**shape, chip=chip, p=chosen.parameters)  # type: ignore[arg-type]
    launch = chosen.parameters["launch"]
    assert seconds([Kernel("gemm", "pytorch", "fp32", shape, count=7.0)], device) == pytest.approx(7 * (alone - launch))
    short = shape | {"m": 1.0, "n": 64.0, "k": 64.0}
    assert seconds([Kernel("gemm", "pytorch", "fp32", short, count=7.0)], device) == pytest.approx(7 * launch)
    assert seconds([Kernel("nothing", "pytorch", "fp32", short)], device) is None


def test_what_is_no_network_on_one_gpu_that_is_known_is_counted(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"model": "switchxl4"}, {"variant": "tp4", "mode": "train", "forward_s": np.nan}, {"device": "Voodoo 5"},
        {"mode": "train", "e2e_latency_s": 2.0}, {"model": "bert_large", "n_layer_cfg": 24, "hidden": 1024, "heads": 16},
    ]  # fmt: skip
    rows(NETWORK, *changes).to_csv(tmp_path / "dnn_e2e_fp32.csv", index=False)
    found = {(r["family"], r["stack"], r["subset"], r["device"], r["n"], r["mape"] is None) for r in validate(tmp_path)["rows"]}
    assert found == {
        ("network", "pytorch-eager", "all", "v100-32gb", 2, False), ("network", "pytorch-eager", "all", "v100-32gb", 1, True),
        ("network", "pytorch-eager", "all", None, 1, True), ("training", "tp4", "all", "v100-32gb", 1, True),
        ("training", "pytorch-eager", "all", "v100-32gb", 1, False),
        ("backward pass", "pytorch-eager", "all", "v100-32gb", 1, False),
    }  # fmt: skip


def test_encoders_and_gpts_of_one_line_are_priced_each_for_itself() -> None:
    device = load_device("v100-32gb")
    bert = {"model": "bert_large", "n_layer_cfg": 24, "hidden": 1024, "heads": 16, "seq": 512}
    prices = []
    for change in ([{}, bert], [bert], [{}]):
        (group,) = dnn_e2e_fp32(rows(NETWORK, *change))
        assert group.price is not None
        prices.append(group.price(device))
    assert prices[0].tolist() == [prices[2][0], prices[1][0]]


@pytest.mark.parametrize(
    ("name", "base", "change", "word"),
    [
        ("dnn_e2e_fp32", NETWORK, {"e2e_latency_s": 0.0}, "measured"),
        ("dnn_e2e_fp32", NETWORK, {"batch": -1}, "batch"),
        ("dnn_e2e_fp32", NETWORK, {"heads": 0}, "heads"),
        ("dnn_e2e_fp32", NETWORK, {"seq": "long"}, "long"),
        ("dnn_e2e_fp32", NETWORK, {"mode": "dream"}, "dream"),
        ("dnn_e2e_fp32", NETWORK, {"mode": "train", "forward_s": -1.0}, "measured -1"),
        ("dnn_e2e_fp32", NETWORK, {"mode": "train"}, "measured"),  # all of it forward
        ("splitwise_llm_power", SERVER, {"tpot_s": 0.0}, "measured"),
        ("splitwise_llm_power", SERVER, {"batch": 0}, "batch"),
        ("splitwise_llm_power", SERVER, {"tp": "two"}, "two"),
        ("splitwise_llm_power", SERVER, {"tp": 0}, "tp"),
        ("splitwise_llm_power", SERVER, {"tp": 1.5}, "tp 1.5"),
        ("splitwise_llm_power", SERVER, {"batch": 100_000}, "serving"),
        ("mlperf_inference_llm_v4_1", MACHINE, {"tokens_per_s": -1.0}, "tokens -1"),
        ("mlperf_inference_llm_v4_1", MACHINE, {"tokens_per_s": 0.0}, "tokens 0"),
        ("mlperf_inference_llm_v4_1", MACHINE, {"samples_per_s": 0.0}, "samples"),
        ("mlperf_inference_llm_v4_1", MACHINE, {"accelerators_per_node": 0}, "devices"),
    ],
)
def test_rows_that_nobody_can_have_measured_are_refused_by_name(tmp_path, name, base, change, word) -> None:
    rows(base, change).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(InputError, match=name) as caught:
        validate(tmp_path)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_is_priced_as_a_run_and_a_run_in_several_batches_is_set_apart(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"e2e_s": 159.0}, {"model": "nobody-knows-this"}]
    rows(SERVER, *changes).to_csv(tmp_path / "splitwise_llm_power.csv", index=False)
    found = {(row["stack"], row["family"], row["subset"]): row for row in validate(tmp_path)["rows"]}
    known, apart = "llama2-70b tp=2", "without runs that were not one batch"
    for family in ("prompt", "time per token"):
        assert (found[known, family, "all"]["n"], found[known, family, apart]["n"]) == (2, 1)
    assert -0.2 < found[known, "time per token", apart]["bias"] < 0.0
    assert found["nobody-knows-this tp=2", "prompt", "all"]["mape"] is None
    assert {"prompt", "time per token"} == set(points(tmp_path)["family"])


def test_a_machine_is_bounded_by_its_best_batch_that_fits() -> None:
    device = load_device("h200")
    (group,) = mlperf_inference_llm_v4_1(rows(MACHINE, {}, {"accelerators_per_node": 1}))
    assert group.price is not None
    found = group.price(device)
    assert found is not None
    assert group.measured.tolist() == [1 / 58_000] * 2
    job = Job(weights="fp8", activations="fp8", kv="fp8")
    step = float(estimated("mixtral-8x7b", device, decode(1024.0, 72.5), job).latency_s)
    assert found[1] <= step / 1024
    assert found[1] / 8 / 1.5 < found[0] <= found[1] / 8  # 8 replicas, or fewer whose larger batches use each weight more


def test_what_a_machine_did_otherwise_is_counted(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"scenario": "Server"}, {"category": "open"}, {"model": "gptj-99", "tokens_per_s": np.nan}, {"model": "unheard-of"},
        {"accelerator": "rtx-4090", "model": "llama2-70b-99", "accelerators_per_node": 1}, {"accelerator": None},
    ]  # fmt: skip
    rows(MACHINE, *changes).to_csv(tmp_path / "mlperf_inference_llm_v4_1.csv", index=False)
    found = validate(tmp_path)["rows"]
    assert sum(row["n"] for row in found) == len(changes)
    assert [(row["stack"], row["device"], row["bias"] < 0) for row in found if row["mape"] is not None] == [
        ("offline", "h200", True)
    ]


def test_whole_networks_are_never_fitted(tmp_path: Path) -> None:
    path = tmp_path / "dnn_e2e_fp32.csv"
    rows(NETWORK, {}).to_csv(path, index=False)
    with pytest.raises(InputError, match="no rows of GPUs"):
        calibrate([path])
