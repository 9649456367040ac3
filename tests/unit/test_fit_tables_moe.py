"""Readers of MoE, power, collective and vector tables: loads and arguments of hand-made rows, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.cost.chips import chip_of
from hwsim.fit.calibrate import _Rows, calibrate, split
from hwsim.fit.dealing import Dealing, _by_rank, _reached, balanced, dealing, power_law
from hwsim.fit.group import Group
from hwsim.fit.loads import classes, layer, loads
from hwsim.fit.tables.attention import infersim_attention
from hwsim.fit.tables.collective import collectives
from hwsim.fit.tables.gemm import infersim_gemm_fp8
from hwsim.fit.tables.moe import infersim_grouped_gemm, llmservingsim_moe, moe_kernels
from hwsim.fit.tables.power import attention_power, gemm_power, moe_power
from hwsim.fit.tables.vector import vector_ops_fp32
from hwsim.fit.validate import predicted, validate
from hwsim.kernels.power import power
from hwsim.kernels.sets import choose

MOE = {
    "gpu": "H200-SXM-141GB", "fw": "vllm", "kernel_source": "vllm_fused_moe", "quant": "bfloat16", "num_tokens": 64,
    "hidden_size": 4096, "inter_size": 2048, "topk": 2, "num_experts": 8, "moe_tp": 1, "moe_ep": 1, "routing": "balanced",
    "latency_s": 1e-3,
}  # fmt: skip
WATTS = {"power_w": 350.0, "power_limit_w": 700.0}
GEMM = WATTS | {"gpu": "H200-SXM-141GB", "quant": "bfloat16", "m": 256, "n": 384, "k": 1000, "latency_s": 1e-3}
ATTENTION = WATTS | {
    "gpu": "H200-SXM-141GB", "phase": "decode", "attn_dtype": "bfloat16", "kv_cache_dtype": "fp8", "batch": 2, "q_len": 1,
    "kv_len": 1000, "num_heads": 8, "num_kv_heads": 4, "head_dim": 128, "window_size": 0, "latency_s": 1e-3,
}  # fmt: skip
COLLECTIVE = {
    "gpu": "V100-PCIE-16GB", "fabric": "PCIe + network", "lib": "nccl", "lib_version": "2.18.3", "kernel_source": "NCCL",
    "collective": "alltoall", "num_nodes": 2, "num_gpus": 8, "message_bytes": 1000, "latency_s": 1e-3,
}  # fmt: skip
OLD_VLLM = {"lib": "vllm", "lib_version": "0.19.0", "num_nodes": 1}


def rows(base: dict[str, Any], *changes: dict[str, Any]) -> pd.DataFrame:
    """One row per change of `base`."""
    return pd.DataFrame([base | change for change in changes])


def only(groups: Any) -> Group:
    (group,) = groups
    return group


def test_balanced_tokens_step_through_the_experts() -> None:
    assert balanced(8, 2, 8, 1).loaded.tolist() == [[2.0] * 8]
    assert balanced(5, 2, 8, 1).loaded.tolist() == [[2.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]]  # the fifth is again on 0 and 4


def test_few_balanced_tokens_are_spread_over_all_experts() -> None:
    assert balanced(2, 2, 8, 1).loaded.tolist() == [[1.0, 0.0] * 4]  # experts 0, 4 and 2, 6
    assert balanced(2, 2, 8, 2).loaded.tolist() == [[1.0, 0.0, 1.0, 0.0]]  # 0 and 2 are on the first of two ranks


@given(
    st.integers(1, 300), st.integers(1, 8), st.sampled_from([8, 16, 60]), st.sampled_from([1.0, 1.01, 1.2, 2.0]), st.booleans()
)  # fmt: skip
def test_a_power_law_deals_every_pair(tokens: int, topk: int, experts: int, alpha: float, to_popular: bool) -> None:
    dealt = power_law(tokens, topk, experts, 1, alpha, Dealing(to_popular=to_popular)).loaded
    assert (dealt.sum(axis=1) == tokens * topk).all()
    assert (dealt >= 0).all()
    assert to_popular or (dealt <= tokens).all()


def test_a_power_law_times_the_most_loaded_rank_and_is_the_same_in_every_run() -> None:
    rank = power_law(512, 4, 32, 4, 1.2).loaded
    assert rank.shape == (16, 8)
    assert (rank.sum(axis=1) >= 512 * 4 / 4).all()
    assert (power_law(512, 4, 32, 4, 1.2).loaded == rank).all()


def test_a_larger_exponent_loads_the_busiest_expert_more() -> None:
    busiest = [power_law(4096, 8, 64, 1, alpha).loaded.max(axis=1).mean() for alpha in (1.01, 1.5)]
    assert busiest[1] > busiest[0] > 4096 * 8 / 64


def test_a_few_pairs_go_to_the_ranks_in_turn_or_all_to_the_first() -> None:
    """One token of 256 experts: every popularity rounds to none, and all 8 pairs are left over."""
    assert (power_law(1, 8, 256, 8, 1.01).loaded.sum(axis=1) == 1.0).all()
    assert (power_law(1, 8, 256, 8, 1.01, Dealing(to_popular=True)).loaded.sum(axis=1) == 8.0).all()


def test_what_is_left_over_lifts_the_least_loaded_experts_of_each_rank() -> None:
    rounded = np.array([[5.0, 1.0, 0.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    more, less = _by_rank(rounded, 13, 100, 2), _by_rank(rounded, 7, 100, 2)
    assert more[0].tolist() == [5.0, 4.0, 2.0, 2.0]  # five more in turn: three for experts 0 and 1, two for 2 and 3
    assert less[0].tolist() == [4.0, 1.0, 0.0, 2.0]  # one less, of the first rank's most loaded
    assert less[1].sum() == 7.0
    assert _by_rank(np.array([[9.0, 1.0, 1.0, 1.0]]), 12, 4, 2)[0].sum() == 12.0  # at most four of one expert
    assert _by_rank(np.array([[9.0, 1.0, 1.0, 1.0]]), 12, 4, 2)[0].max() == 4.0


def test_sglang_0_5_10_computed_pairs_of_other_ranks_too() -> None:
    """8 tokens, each to an expert and to the fourth after it, of 8: every token reaches the first of two ranks."""
    here = Dealing(all_here=True)
    two, four = balanced(8, 2, 8, 2, here), balanced(8, 2, 8, 4, here)
    assert (two.loaded.tolist(), two.tokens) == ([[10.0, 2.0, 2.0, 2.0]], 8.0)  # 8 pairs of its own, 8 of the other rank
    assert (four.loaded.tolist(), four.tokens) == ([[6.0, 2.0]], 4.0)  # tokens 0, 1, 4 and 5
    assert balanced(8, 2, 8, 1, here).loaded.tolist() == balanced(8, 2, 8, 1).loaded.tolist()
    dealt = power_law(512, 4, 32, 8, 1.2, here)
    assert dealt.loaded.sum(axis=1).mean() == pytest.approx(4 * dealt.tokens)
    assert power_law(512, 4, 32, 8, 1.2).loaded.sum(axis=1).mean() / 4 < dealt.tokens < 512


def test_tokens_that_reach_a_rank_are_a_union_of_intervals() -> None:
    """Six tokens, two pairs each. Busiest first: 4 + 3 + 3 + 2 pairs are the tokens 0-3, 4-5 and 0, 1-3, 4-5."""
    by_rank = np.array([[[4.0, 3.0], [3.0, 2.0]]])
    assert _reached(by_rank, np.array([0]), 6).tolist() == [6.0]
    assert _reached(by_rank, np.array([1]), 6).tolist() == [5.0]


@pytest.mark.parametrize(
    ("framework", "version", "how"),
    [
        ("vllm", "0.14.0", Dealing(to_popular=True)), ("vllm", "0.24.0", Dealing()),
        ("trtllm", "1.0.0", Dealing(to_popular=True)), ("trtllm", "1.3.0rc20", Dealing()),
        ("sglang", "0.5.10", Dealing(all_here=True)), ("sglang", "0.5.14", Dealing()),
        ("vllm", "", Dealing()), ("mine", "x", Dealing()),
    ],
)  # fmt: skip
def test_how_tokens_were_dealt_follows_the_version(framework: str, version: str, how: Dealing) -> None:
    assert dealing(framework, version) == how


def test_classes_are_mean_loads_of_experts_that_have_tokens() -> None:
    load, count = classes(np.array([[9.0, 4.0, 2.0, 0.0], [7.0, 2.0, 1.0, 1.0]]))
    assert load[:3].tolist() == [8.0, 3.0, pytest.approx(4 / 3)]
    assert count[:3].tolist() == [1.0, 1.0, 1.5]
    assert not count[3:].any()


def test_the_last_class_holds_all_other_experts() -> None:
    load, count = classes(np.ones((1, 2000)))
    assert count.tolist() == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1488.0]
    assert (load == 1.0).all()


def test_one_rank_gets_all_tokens_and_rows_keep_their_order() -> None:
    table = rows(MOE, {"num_tokens": 7}, {"num_tokens": 100, "routing": "power_law_1.2"}, {"num_tokens": 7}, {"moe_ep": 2})
    load, count, tokens = loads(table)
    assert tokens.tolist() == [7.0, 100.0, 7.0, 64.0]
    assert (load * count).sum(axis=0)[:3] == pytest.approx([14.0, 200.0, 14.0])
    assert (load * count).sum(axis=0)[3] == pytest.approx(64.0)  # half of 64 x 2 pairs


def test_shapes_are_split_over_ranks() -> None:
    given_ = layer(rows(MOE, {"moe_tp": 4, "moe_ep": 2}))
    assert (given_["inter"][0], given_["local"][0], given_["tokens"][0]) == (512.0, 4.0, 64.0)


def test_nemotron_experts_have_two_matrices_unless_they_were_run_with_a_gate() -> None:
    nemotron = {"hidden_size": 2688, "inter_size": 1856, "topk": 6, "num_experts": 128}
    old = nemotron | {"gpu": "A100-SXM4-80GB"}
    assert layer(rows(MOE, {}, nemotron, old, old | {"fw": "trtllm"}))["matrices"].tolist() == [3.0, 2.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("quant", "weights", "activations", "set_name", "peak"),
    [
        ("bfloat16", 2.0, 2.0, "bf16", "bf16"), ("fp8_block", 1.0, 1.0, "fp8_block", "fp8"),
        ("nvfp4", 0.5625, 0.5625, "nvfp4", "fp4"), ("w4a16_mxfp4", 0.53125, 2.0, "mxfp4_bf16", "bf16"),
    ],
)  # fmt: skip
def test_weight_bytes_count_scales(quant: str, weights: float, activations: float, set_name: str, peak: str) -> None:
    group = only(moe_kernels(rows(MOE, {"quant": quant})))
    assert (group.arguments["weight_bytes"], group.arguments["activation_bytes"]) == (weights, activations)
    assert (group.format, group.peak) == (set_name, peak)


def test_stacks_are_named_by_framework_and_library() -> None:
    sources = ["vllm_fused_moe", "vllm_fp8moe_flashinfer_trtllm_x", "vllm_gptossmxfp4moe_marlin_marlinexperts", "new"]
    groups = moe_kernels(rows(MOE, *[{"kernel_source": source} for source in sources]))
    assert sorted(group.stack for group in groups) == ["vllm", "vllm-marlin", "vllm-triton", "vllm-trtllm"]
    assert only(moe_kernels(rows(MOE, {"fw": "trtllm", "kernel_source": "moe_torch_flow"}))).stack == "trtllm-cutlass"


def test_a_group_has_its_measured_seconds_and_shapes() -> None:
    group = only(moe_kernels(rows(MOE, {}, {"num_tokens": 8, "latency_s": 2e-3})))
    assert group.measured.tolist() == [1e-3, 2e-3]
    assert group.label is not None
    assert group.label.tolist() == ["4096x2048x2x8"] * 2


def test_grouped_products_of_one_gpu_add_up() -> None:
    table = pd.DataFrame({
        "num_local_experts": 8, "tokens_per_gpu": [64, 1], "topk": 2, "hidden_size": 4096, "inter_size": 1536, "up_proj_s": 2e-4,
        "down_proj_s": 1e-4,
    })  # fmt: skip
    group = only(infersim_grouped_gemm(table))
    assert group.measured == pytest.approx([3e-4, 3e-4])
    load, count = group.arguments["load"], group.arguments["count"]
    assert load[:, 0].tolist() == [11.0, 13.0, 14.0, 15.0, 16.0, 17.0, 19.0, 20.0]  # 16 x 0.7375, 0.8125, ... 1.2625
    assert load[:, 1].tolist() == [1.0] * 8  # 1 of 0.25: half of the experts have less than one row, which is none
    assert count.T.tolist() == [[1.0] * 8, [0.0] * 4 + [1.0] * 4]


def test_experts_that_were_hit_share_the_tokens() -> None:
    group = only(llmservingsim_moe(pd.DataFrame({"tokens": [16], "activated_experts": [32], "latency_s": [1e-4]})))
    assert (group.arguments["load"] * group.arguments["count"]).tolist() == [[128.0]]
    assert group.arguments["load"].tolist() == [[4.0]]


def test_power_keeps_rows_over_100_us() -> None:
    group = only(gemm_power(rows(GEMM, {}, {"latency_s": 99e-6})))
    assert (group.rows, group.quantity, group.subset) == (1, "power", "over 100 us")
    assert group.measured.tolist() == [350.0]
    assert (group.arguments["tdp"].tolist(), group.arguments["seconds"].tolist()) == ([700.0], [1e-3])


def test_work_of_a_gemm_at_power() -> None:
    work = only(gemm_power(rows(GEMM, {}))).arguments
    assert work["ops"] == pytest.approx([2 * 256 * 384 * 1000])
    assert work["bytes"] == pytest.approx([2 * (384 * 1000 + 256 * 1000 + 256 * 384)])
    assert work["tiles"] == pytest.approx([2 * 3])


def test_work_of_attention_at_power() -> None:
    decode = only(attention_power(rows(ATTENTION, {})))
    assert (decode.stack, decode.format, decode.peak) == ("decode", "fp8", "bf16")
    assert decode.arguments["ops"] == pytest.approx([4 * 2 * 1000 * 8 * 128])
    assert decode.arguments["bytes"] == pytest.approx([2 * (1000 * 4 * 2 * 128 + 8 * 128 * 4)])
    assert decode.arguments["tiles"] == pytest.approx([8])


def test_a_window_cuts_pairs_of_prefill_but_not_what_is_read() -> None:
    change = {"phase": "prefill", "batch": 1, "q_len": 300, "kv_len": 300, "window_size": 100}
    work = only(attention_power(rows(ATTENTION, change))).arguments
    assert work["ops"] == pytest.approx([4 * (100 * 101 / 2 + 200 * 100) * 8 * 128])
    assert work["bytes"] == pytest.approx([300 * 4 * 2 * 128 + 300 * 8 * 128 * 4])
    assert work["tiles"] == pytest.approx([8 * 3])


def test_work_of_experts_at_power() -> None:
    """64 tokens x 2 in 16 for each of 8 experts, three matrices of 4096 x 2048."""
    work = only(moe_power(rows(MOE | WATTS, {}))).arguments
    assert work["ops"] == pytest.approx([2 * 128 * 3 * 4096 * 2048])
    assert work["bytes"] == pytest.approx([8 * 3 * 4096 * 2048 * 2 + 128 * (4096 * 6 + 2048 * 12)])
    assert work["tiles"] == pytest.approx([8 * 32])


def test_tiles_fill_the_sms_of_the_device() -> None:
    group, device = only(gemm_power(rows(GEMM, {}, {"m": 128 * 200}))), load_device("h200")
    chip, chosen = chip_of(device, "bf16"), choose(device.kernels["power"], "gemm", "bf16")
    assert chip is not None
    assert chosen is not None
    arguments = {name: value for name, value in group.arguments.items() if name != "tiles"}
    watts = power(**arguments, filled=np.array([6 / 132, 1.0]), chip=chip, p=chosen.parameters)
    assert predicted(group, device) == pytest.approx(watts)


def test_watts_are_also_reported_as_energy_of_all_rows(tmp_path: Path) -> None:
    table = rows(GEMM, {}, {"m": 4096, "latency_s": 3e-3, "power_w": 500.0})
    table.to_csv(tmp_path / "gemm_power.csv", index=False)
    watts, energy = validate(tmp_path)["rows"]
    found = predicted(only(gemm_power(table)), load_device("h200"))
    assert found is not None
    assert (watts["quantity"], energy["quantity"], energy["subset"]) == ("power", "energy", "over 100 us")
    assert energy["mape"] == watts["mape"]
    assert energy["bias"] == pytest.approx((found[0] + 3 * found[1]) / (350 + 3 * 500) - 1)


def test_an_all_to_all_shares_the_adapter_of_its_node_and_a_ring_does_not() -> None:
    groups = {group.format: group for group in collectives(rows(COLLECTIVE, {}, {"collective": "all_reduce"}))}
    assert groups["alltoall"].arguments["bytes"].tolist() == [4000.0]
    assert groups["all_reduce"].arguments["bytes"].tolist() == [1000.0]
    assert groups["all_reduce"].arguments["name"] == "all_reduce"


@pytest.mark.parametrize(
    ("change", "stack"),
    [
        ({}, "nccl-2.18-network"),
        ({"num_nodes": 1}, "nccl-2.18-pcie"),
        ({"lib_version": "2.29.2", "fabric": "NVLink/NVSwitch"}, "nccl-network"),
        (OLD_VLLM | {"fabric": "PCIe", "kernel_source": "vLLM_custom_eager"}, "vllm-0.19-eager-pcie"),
        (OLD_VLLM | {"fabric": "NVLink/NVSwitch"}, "vllm"),
        ({"lib": "torch.distributed NCCL", "lib_version": None, "fabric": "pairwise NVLink + PCIe"}, "torch-pairwise-network"),
    ],
)
def test_collective_stacks_name_library_launch_and_fabric(change: dict[str, Any], stack: str) -> None:
    assert only(collectives(rows(COLLECTIVE, change))).stack == stack


@pytest.mark.parametrize(
    ("reader", "row", "label"),
    [
        (collectives, COLLECTIVE, "8x1000"), (gemm_power, GEMM, "384x1000"), (attention_power, ATTENTION, "8x4x128"),
        (moe_power, MOE | WATTS, "4096x2048x2x8"), (infersim_gemm_fp8, GEMM, "384x1000"),
        (infersim_attention, ATTENTION | {"kind": "mla", "kv_dtype": "bf16"}, "8/1000"),
    ],
)  # fmt: skip
def test_every_row_names_its_shape_so_that_a_fit_can_hold_it_out(reader: Any, row: dict[str, Any], label: str) -> None:
    found = only(reader(rows(row, {}, {}))).label
    assert found is not None
    assert found.tolist() == [label] * 2


@pytest.mark.parametrize(
    ("table", "row", "column", "family"),
    [
        ("gemm_llm_kernels", GEMM | {"fw": "vllm", "kernel_source": "mm"}, "quant", "gemm"), ("moe_kernels", MOE, "quant", "moe"),
        ("gemm_power", GEMM, "quant", "power"), ("moe_power", MOE | WATTS, "quant", "power"),
        ("attention_power", ATTENTION, "attn_dtype", "power"), ("attention_power", ATTENTION, "kv_cache_dtype", "power"),
    ],
)  # fmt: skip
def test_a_format_that_nobody_knows_is_a_line_without_an_error(
    tmp_path: Path, table: str, row: dict[str, Any], column: str, family: str
) -> None:
    rows(row, {}, {column: "fp7_odd"}, {column: "fp7_odd"}).to_csv(tmp_path / f"{table}.csv", index=False)
    odd = only(line for line in validate(tmp_path)["rows"] if "fp7_odd" in line["dtype"])
    assert (odd["family"], odd["device"], odd["n"], odd["mape"]) == (family, "h200", 2, None)
    assert any(line["mape"] is not None for line in validate(tmp_path)["rows"])
    assert [len(sets) for sets in calibrate([tmp_path / f"{table}.csv"])["kernels"].values()] == [1]  # and is not fitted


def test_a_fit_of_collectives_is_judged_on_sizes_that_it_has_not_seen(tmp_path: Path) -> None:
    sizes = [{"message_bytes": 2**power_, "latency_s": 1e-5 + 2**power_ / 1e10} for power_ in range(10, 30)]
    rows(COLLECTIVE, *sizes).to_csv(tmp_path / "collectives.csv", index=False)
    (one,) = calibrate([tmp_path / "collectives.csv"])["kernels"]["collective"]
    assert "20 of 20 rows; unseen shapes: MAPE" in one["fitted"]
    assert "of 5 rows" in one["fitted"]


def test_collectives_that_a_fit_does_not_see_are_of_every_count_of_devices() -> None:
    sizes = [{"num_gpus": count, "message_bytes": 2**power_} for power_ in range(10, 22) for count in (2, 4, 8, 16)]
    _, unseen, _ = split([_Rows(only(collectives(rows(COLLECTIVE, *sizes))), load_device("h200"))])
    assert set(unseen[0].group.arguments["devices"]) == {2.0, 4.0, 8.0, 16.0}


def test_vector_kernels_read_one_tensor_or_two_and_reduce_rows() -> None:
    table = pd.DataFrame({
        "device": "Tesla P4", "op": ["add", "mul_scalar", "softmax"], "rows": 10, "cols": 100, "latency_s": 1e-5,
    })  # fmt: skip
    groups = {group.stack: group for group in vector_ops_fp32(table)}
    assert groups["pytorch-elementwise"].arguments["bytes"].tolist() == [12000.0, 8000.0]
    assert groups["pytorch-elementwise"].arguments["rows"].tolist() == [0.0, 0.0]
    assert groups["pytorch-softmax"].arguments["ops"].tolist() == [6000.0]
    assert groups["pytorch-softmax"].arguments["rows"].tolist() == [10.0]
