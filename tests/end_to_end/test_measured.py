"""`hwsim validate` and `hwsim fit` on tables that are written here, and on the real ones where they are."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hwsim.catalogue import load_device
from hwsim.cost.chips import chip_of
from hwsim.fit.calibrate import _Rows, split
from hwsim.fit.devices import finder
from hwsim.fit.error import errors
from hwsim.fit.group import Group
from hwsim.fit.read import groups
from hwsim.fit.validate import predicted as predicted_rows
from hwsim.fit.validate import priced
from hwsim.kernels.gemm import gemm
from hwsim.kernels.sets import choose, stated
from hwsim.quantity import show
from tests.command import document, hwsim, refused

MEASURED = Path(os.environ.get("HWSIM_DATA", Path(__file__).parents[3] / "shared" / "data")) / "measured"
SHAPES = [
    (m, n, k) for n, k in ((4096, 4096), (6144, 4096), (8192, 8192), (28672, 4096)) for m in (1, 16, 64, 256, 1000, 4096, 8192)
]


def table(gpu: str, seconds) -> pd.DataFrame:
    m, n, k = np.array(SHAPES).T
    rows = {"gpu": gpu, "fw": "vllm", "quant": "bfloat16", "m": m, "n": n, "k": k, "latency_s": seconds, "kernel_source": "mm"}
    return pd.DataFrame(rows)


def predicted(name: str, **changed: float):
    device = load_device(name)
    p = dict(choose(device.kernels["gemm"], "vllm", "bf16").parameters) | changed
    m, n, k = np.array(SHAPES, dtype=float).T
    return gemm(m=m, n=n, k=k, a_bytes=2.0, w_bytes=2.0, o_bytes=2.0, copies=6.0, chip=chip_of(device, "bf16"), p=p)


def test_a_model_is_right_about_itself_and_says_which_gpu_it_does_not_know(tmp_path):
    both = [table("H100-SXM-80GB", predicted("h100")), table("Voodoo 5", 1.0), table("H200", 1.1 * predicted("h200"))]
    pd.concat(both).to_csv(tmp_path / "gemm_llm_kernels.csv", index=False)
    (tmp_path / "notes.txt").write_text("not a table")
    rows = {row["source_device"]: row for row in document("validate", str(tmp_path))["rows"]}
    assert rows["H100-SXM-80GB"]["device"] == "h100"
    assert rows["H100-SXM-80GB"]["mape"] == pytest.approx(0, abs=1e-9)
    assert rows["H200"]["bias"] == pytest.approx(1 / 1.1 - 1)
    assert (rows["Voodoo 5"]["device"], rows["Voodoo 5"]["mape"], rows["Voodoo 5"]["n"]) == (None, None, len(SHAPES))
    status, out, err = hwsim("validate", str(tmp_path))
    assert (status, err) == (0, "")
    assert "unknown: Voodoo 5" in out


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_that_the_cache_made_fast_are_reported_with_and_without(tmp_path, kind):
    seconds = predicted("h200")
    seconds[3] /= 2
    rows = table("H200", seconds).assign(l2_hot_likely=np.arange(len(SHAPES)) == 3)
    path = tmp_path / f"gemm_llm_kernels.{kind}"
    rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    found = {row["subset"]: row for row in document("validate", str(tmp_path))["rows"]}
    assert found["all"]["mape"] == pytest.approx(1 / len(SHAPES))
    assert found["without l2-hot rows"]["mape"] == pytest.approx(0.0)
    assert found["without l2-hot rows"]["n"] == len(SHAPES) - 1


def test_a_folder_of_devices_is_searched_first(tmp_path):
    """A GPU that arch/ does not know is its datasheet and the generation it is of."""
    (tmp_path / "arch").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "arch" / "voodoo.yaml").write_text(
        "extends: h100\naliases: [Voodoo 5]\nsource: a test\nmemories: {hbm: {bandwidth: 4.8 TB/s}}\n"
    )
    table("voodoo 5", predicted("h200")).to_csv(tmp_path / "data" / "gemm_llm_kernels.csv", index=False)
    (row,) = document("validate", str(tmp_path / "data"), "--arch", str(tmp_path / "arch"))["rows"]
    assert row["device"] == "voodoo"
    assert row["mape"] < 0.02


@pytest.mark.parametrize("first", ["aliases: [Voodoo 5]\n", "aliases: [B]\n"])
def test_two_device_files_of_one_name_are_refused(tmp_path, first):
    (tmp_path / "a.yaml").write_text(f"extends: h100\nsource: a test\n{first}")
    (tmp_path / "b.yaml").write_text("extends: h200\nsource: a test\naliases: [voodoo 5]\n")
    table("voodoo 5", 1.0).to_csv(tmp_path / "gemm_llm_kernels.csv", index=False)
    err = refused("validate", str(tmp_path), "--arch", str(tmp_path))
    assert "a.yaml" in err
    assert "b.yaml" in err


def test_a_fit_finds_the_parameters_that_made_the_table_and_a_device_file_takes_them(tmp_path):
    true = predicted("h100", launch=9e-6, dram=0.6, compute=0.7)
    data = tmp_path / "data"
    data.mkdir()
    table("mine", true).to_csv(data / "gemm_llm_kernels.csv", index=False)
    arch = tmp_path / "arch"
    arch.mkdir()
    (arch / "mine.yaml").write_text("extends: h100\nsource: a test\n")
    fragment = tmp_path / "fragment.yaml"
    status, out, err = hwsim("fit", str(data / "gemm_llm_kernels.csv"), "--out", str(fragment), "--arch", str(arch))
    assert (status, err) == (0, "")
    assert "unseen shapes" in out
    found = yaml.safe_load(fragment.read_text())
    numbers = found["kernels"]["gemm"][0]["parameters"]
    assert float(numbers["dram"]) == pytest.approx(0.6, rel=0.02)
    assert float(numbers["compute"]) == pytest.approx(0.7, rel=0.02)
    (arch / "mine.yaml").write_text("extends: h100\nsource: a test\n" + fragment.read_text())
    (row,) = document("validate", str(data), "--arch", str(arch))["rows"]
    assert row["mape"] < 0.01


def test_a_fit_can_pool_stacks_and_hold_out_the_largest_shapes(tmp_path):
    vllm, sglang = table("H200", predicted("h200")), table("H200", 1.3 * predicted("h200")).assign(fw="sglang")
    path, fragment = tmp_path / "gemm_llm_kernels.csv", tmp_path / "fragment.yaml"
    pd.concat([vllm, sglang]).to_csv(path, index=False)
    status, out, err = hwsim("fit", str(path), "--out", str(fragment), "--pooled", "vllm", "--largest")
    assert (status, err) == (0, "")
    assert out.count("the largest shapes: MAPE") == 3
    sets = {tuple(one["stacks"]): one for one in yaml.safe_load(fragment.read_text())["kernels"]["gemm"]}
    assert set(sets) == {("sglang",), ("trtllm", "vllm"), ("any",)}  # as the sets in use are named
    assert sets["any",]["parameters"] == sets["trtllm", "vllm"]["parameters"]  # vllm's rows alone
    assert sets["any",]["formats"] == ["bf16", "fp16"]


def test_the_largest_shapes_are_those_that_take_longest():
    seconds = np.array([1.0, 9.0, 2.0, 2.0, 3.0, 1.0, 4.0, 1.0])
    label = np.array(["a", "a", "b", "b", "c", "c", "d", "d"], dtype=object)  # medians of 5, 2, 2 and 2.5 s
    group = Group("t", "h200", "gemm", "vllm", "bf16", seconds, {}, "bf16", "bf16", label=label)
    rows = [_Rows(group, load_device("h200"))]
    (seen,), (unseen,), how = split(rows, largest=True)
    assert (set(unseen.group.label), set(seen.group.label), how) == ({"a"}, {"b", "c", "d"}, "the largest shapes")
    assert set(split(rows)[1][0].group.label) == {"d"}


@pytest.mark.parametrize(
    ("kernels", "word"),
    [
        ("{gemm: 3}", "list of sets"),
        ("{gemm: {like: hopper}}", "because"),
        ("{gemm: {like: voodoo, because: x}}", "blackwell-rtx"),
        ("{gemm: {like: ../hopper, because: x}}", "blackwell-rtx"),
        ("{gemm: {like: [a], because: x}}", "blackwell-rtx"),
        ("{gemm: {like: ada, because: a chain}}", "list of sets"),
        ("{gemm: {like: hopper, because: x, sets: []}}", "list of sets"),
        ("{gem: []}", "kernel family"),
        ("[1]", "mapping"),
        ("{gemm: [{stacks: [any], formats: [bf16], fitted: x, parameters: {launch: 1 us}}]}", "missing"),
    ],
)
def test_bad_kernel_models_are_refused_by_name(tmp_path, kernels, word):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: h100\nsource: a test\nkernels: {kernels}\n")
    status, _, err = hwsim("run", "llama-3.1-8b", str(path))
    assert status == 2
    assert "kernels" in err
    assert word in err


@pytest.mark.parametrize(
    ("family", "name", "value", "accepted"),
    [
        ("power", "knee", "0", "more than 0; a fit stays within 0.003 and 1"), ("power", "sharp", "0", "more than 0"),
        ("collective", "rate_3", "0", "more than 0"), ("collective", "peers", "-1", "-0.9 or more"),
        ("gemm", "dram", "-0.5", "more than 0"), ("gemm", "row", "-1 ns", "0 or more"),
        ("gemm", "tiles", "5", "a whole number from 0 to 4"), ("gemm", "tiles", "0.5", "a whole number from 0 to 4"),
    ],
)  # fmt: skip
def test_a_number_that_no_kernel_can_have_is_refused_where_it_is_written(tmp_path, family, name, value, accepted):
    path = tmp_path / "mine.yaml"
    whole = {known: show(one.start, one.unit) for known, one in stated(family).items()}
    one = {"stacks": ["any"], "formats": ["any"], "fitted": "a test", "parameters": whole | {name: value}}
    path.write_text(f"extends: h100\nsource: a test\nkernels: {json.dumps({family: [one]})}\n")
    err = refused("show", str(path))
    assert "mine.yaml" in err
    assert f"kernels.{family}.0: {name}: {value}; accepted: {accepted}" in err


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("latency_s", 0.0),
        ("latency_s", -1.0),
        ("latency_s", np.nan),
        ("latency_s", np.inf),
        ("m", 0),
        ("n", np.nan),
        ("k", 1e300),
    ],
)
def test_a_number_that_nobody_can_have_measured_is_refused(tmp_path, column, value):
    path = tmp_path / "gemm_llm_kernels.csv"
    rows = table("H200", predicted("h200"))
    rows[column] = rows[column].astype(float)
    rows.loc[3, column] = value
    rows.to_csv(path, index=False)
    for command in (("validate", str(tmp_path), "--json"), ("fit", str(path), "--out", str(tmp_path / "x.yaml"))):
        status, out, err = hwsim(*command)
        assert (status, out) == (2, "")
        assert "gemm_llm_kernels.csv" in err
        assert "accepted" in err


@pytest.mark.parametrize(("column", "value"), [("num_experts", 0), ("topk", 900), ("moe_ep", 0), ("num_tokens", -5)])
def test_experts_that_cannot_be_dealt_are_refused(tmp_path, column, value):
    row = {
        "gpu": "H200", "fw": "vllm", "quant": "bfloat16", "kernel_source": "triton", "num_tokens": 64, "hidden_size": 2048,
        "inter_size": 768, "topk": 8, "num_experts": 128, "moe_tp": 1, "moe_ep": 1, "routing": "power_law_1.2", "latency_s": 1e-4,
    }  # fmt: skip
    pd.DataFrame([row | {column: value}]).to_csv(tmp_path / "moe_kernels.csv", index=False)
    status, _, err = hwsim("validate", str(tmp_path))
    assert status == 2
    assert "moe_kernels.csv" in err


def test_a_row_without_a_name_is_a_row(tmp_path):
    rows = table("H200", predicted("h200"))
    rows.loc[0, "gpu"] = None
    rows.to_csv(tmp_path / "gemm_llm_kernels.csv", index=False)
    assert sum(row["n"] for row in document("validate", str(tmp_path))["rows"]) == len(SHAPES)


def test_a_table_of_absurd_width_or_that_is_a_pipe_is_refused(tmp_path):
    path = tmp_path / "gemm_llm_kernels.csv"
    path.write_text("a," * 100_000 + "\n")
    assert hwsim("validate", str(tmp_path))[0] == 2
    path.unlink()
    os.mkfifo(path)
    assert hwsim("validate", str(tmp_path))[0] == 2


def endless(rows: int) -> pd.DataFrame:
    """A gemm table of one row over and over, which Parquet packs to almost nothing."""
    return pd.DataFrame({name: np.ones(rows, dtype=np.int8) for name in ("m", "n", "k", "gpu", "fw", "quant", "latency_s")})


@pytest.mark.parametrize(("cap", "rows"), [("MAX_ROWS", 1_000), ("MAX_CELLS", 7_000)])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_of_too_many_rows_is_refused_before_it_is_read(tmp_path, monkeypatch, cap, rows, kind):
    monkeypatch.setattr(f"hwsim.fit.size.{cap}", rows)
    monkeypatch.setattr("pandas.read_parquet", None)
    monkeypatch.setattr("pandas.read_csv", None)
    path = tmp_path / f"gemm_llm_kernels.{kind}"
    table = endless(1_001)
    table.to_parquet(path) if kind == "parquet" else table.to_csv(path, index=False)
    err = refused("validate", str(tmp_path))
    assert path.name in err
    assert f"at most {rows:,}" in err


@pytest.mark.parametrize("content", ["\n" + "," * 99 + "\n" * 11, "a\n" + "," * 99 + "\n" * 11, "a,b\n" + "1\r" * 600])
def test_columns_and_rows_of_text_are_counted_wherever_they_stand(tmp_path, monkeypatch, content):
    monkeypatch.setattr("hwsim.fit.size.MAX_CELLS", 1_000)
    monkeypatch.setattr("pandas.read_csv", None)
    (tmp_path / "gemm_llm_kernels.csv").write_text(content, newline="")
    assert "at most 1,000" in refused("validate", str(tmp_path))


def test_a_small_file_of_21_million_rows_is_refused(tmp_path):
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    path = tmp_path / "gemm_llm_kernels.parquet"
    part = pa.table(endless(1_000_000))
    with ParquetWriter(path, part.schema) as file:
        for _ in range(21):
            file.write_table(part)
    assert path.stat().st_size < 1_000_000
    assert "21,000,000 rows" in refused("fit", str(path), "--out", str(tmp_path / "x.yaml"))


def test_a_parquet_file_with_a_broken_end_is_refused(tmp_path):
    (tmp_path / "gemm_llm_kernels.parquet").write_bytes(b"PAR1" + b"\x15\x99" * 20 + b"\x10\0\0\0PAR1")
    assert "gemm_llm_kernels.parquet" in refused("validate", str(tmp_path))


@pytest.mark.parametrize("content", ["gpu,fw\n1,2\n", "\x00\x01", ""])
def test_a_bad_table_is_refused_by_name(tmp_path, content):
    (tmp_path / "gemm_llm_kernels.csv").write_text(content)
    status, _, err = hwsim("validate", str(tmp_path))
    assert status == 2
    assert "gemm_llm_kernels.csv" in err


def test_a_fit_never_writes_over_its_table(tmp_path):
    path = tmp_path / "gemm_llm_kernels.csv"
    table("H200", predicted("h200")).to_csv(path, index=False)
    before = path.read_bytes()
    status, _, err = hwsim("fit", str(path), "--out", str(tmp_path / "x" / ".." / path.name))
    assert status == 2
    assert "--out" in err
    assert path.read_bytes() == before


def test_an_empty_folder_is_refused(tmp_path):
    assert hwsim("validate", str(tmp_path))[0] == 2
    assert hwsim("fit", str(tmp_path / "nothing.csv"), "--out", str(tmp_path / "x.yaml"))[0] == 2
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_the_measured_tables_are_priced_and_kernel_models_stay_within_their_error():
    """The bounds are the errors that issue 4 asks for on shapes that a fit has not seen, not our own figures."""
    rows = pd.DataFrame(document("validate", str(MEASURED))["rows"])
    rows = rows[rows["mape"].notna() & (rows["subset"] == "all")]
    assert rows["n"].sum() > 700_000
    gemms = rows[(rows["table"] == "gemm_llm_kernels") & (rows["dtype"] == "bfloat16")]
    assert np.average(gemms["mape"], weights=gemms["n"]) < 0.09


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_experts_stay_within_their_error_also_on_a_gpu_that_no_set_has_seen():
    """10 % median, 15 % trimmed: as issue 4 asks. H20's rows are two products: nothing is moved, and tiles have 64 rows."""
    (group,) = groups(MEASURED / "infersim_grouped_gemm.csv")
    kernel = choose(load_device("h200").kernels["moe"], "trtllm", "fp8_block")
    products = dict(kernel.parameters) | {"local": 0.0, "dropped": 0.0, "rows": 64.0}
    unseen = errors(priced(group, load_device("h20"), replace(kernel, parameters=products)), group.measured)
    assert unseen["median"] < 0.10
    assert unseen["trimmed_mape"] < 0.15
    device_of, found = finder(), {}
    for one in groups(MEASURED / "moe_kernels.parquet"):
        signed = predicted_rows(one, device_of(one.device)) / one.measured - 1
        found.setdefault(one.device, []).append(np.abs(signed))
    for sizes in (np.sort(np.concatenate(parts)) for parts in found.values()):
        assert np.median(sizes) < 0.10
        assert sizes[: int(0.9 * len(sizes))].mean() < 0.15


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_whole_networks_stay_within_their_error(tmp_path):
    """12 % is what issue 4 asks for. P100's GEMM set is too slow for these shapes and P4 throttles: two bounds of our own."""
    shutil.copy(MEASURED / "dnn_e2e_fp32.csv", tmp_path)
    rows = pd.DataFrame(document("validate", str(tmp_path))["rows"])
    assert rows[~rows["family"].isin(["backward pass"])]["n"].sum() == 67
    rows = rows[rows["mape"].notna()].set_index(["family", "stack", "device"])["mape"].sort_index()
    eager = rows["network", "pytorch-eager"]
    assert set(eager.index) == {"mi100", "mi250", "a100-pcie-40gb", "v100-32gb", "p100", "p4"}
    assert eager.drop(["p100", "p4"]).max() < 0.12
    assert eager["p100"] < 0.2
    assert eager["p4"] < 0.35
    assert rows["network", "pytorch-compiled"].max() < 0.12
    assert rows["training"].max() < 0.2
    assert rows["backward pass"].max() < 0.12


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_no_machine_beats_its_bound():
    device_of, priced = finder(), 0
    for group in groups(MEASURED / "mlperf_inference_llm_v4_1.csv"):
        device = device_of(group.device)
        if device is not None and (bound := predicted_rows(group, device)) is not None:
            assert (bound <= group.measured).all()
            priced += group.rows
    assert priced == 38


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_requests_that_vllm_served_stay_within_their_error(tmp_path):
    """Bounds of our own, on means. Qwen3's experts are too slow in the simulation (docs/serving.md) and have no bound."""
    shutil.copy(MEASURED / "vllm_requests_e2e.csv", tmp_path)
    rows = pd.DataFrame(document("validate", str(tmp_path))["rows"])
    assert set(rows["n"]) == {300}
    of = rows["stack"].str.rpartition(" ")[2]  # TTFT, TPOT or E2E
    dense = rows.assign(of=of)[rows["stack"].str.contains("Llama-3.1-8B")].set_index(["device", "of"])["mape"]
    assert len(dense) == 6
    for name, bound in (("TTFT", 0.10), ("TPOT", 0.05), ("E2E", 0.07)):
        assert dense["rtx-pro-6000", name] < bound
    assert dense["rtx-4090"].max() < 0.12


def test_servers_are_simulated_when_asked(tmp_path):
    row = {
        "gpu": "h200", "fw": "vllm", "model": "gpt2", "precision": "bf16", "gemm_quant_mode": "", "mode": "agg",
        "isl": 64, "osl": 8, "concurrency": 2, "tp_size": 1, "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1,
        "moe_ep_size": 1, "ttft_s": 0.01, "tpot_s": 0.002,
    }  # fmt: skip
    pd.DataFrame([row, row | {"concurrency": 4}]).to_csv(tmp_path / "serving_e2e.csv", index=False)
    assert [row["mape"] for row in document("validate", str(tmp_path))["rows"]] == [None, None]
    found = document("validate", str(tmp_path), "--serving")["rows"]
    assert [row["n"] for row in found if row["mape"] is not None] == [2, 2]
    assert document("validate", str(tmp_path), "--serving")["rows"] == found


def test_the_report_draws_each_family_and_needs_no_network(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    both = [table("H100-SXM-80GB", predicted("h100")), table("Voodoo 5", 1.0)]
    pd.concat(both).to_csv(data / "gemm_llm_kernels.csv", index=False)
    page = tmp_path / "page.html"
    assert hwsim("validate", str(data), "--report", str(page))[0] == 0
    text = page.read_text()
    assert f"{len(SHAPES)} of {len(SHAPES)} rows shown; MAPE 0.0 %" in text
    assert "unknown: Voodoo 5" in text
    assert "<script src" not in text
    table("Voodoo 5", 1.0).to_csv(data / "gemm_llm_kernels.csv", index=False)  # nothing to draw
    assert hwsim("validate", str(data), "--report", str(page))[0] == 0
    assert "MAPE 0.0" not in page.read_text()


@pytest.mark.skipif(not MEASURED.is_dir(), reason=f"measured tables are not at {MEASURED}; set HWSIM_DATA")
def test_drives_follow_the_queueing_law(tmp_path):
    """One law with two numbers for each drive and direction, up to 4,096 requests in flight: a tenth off, but for an HBA."""
    for name in ("storage_fio_sata_ssd.parquet", "cloud_vm_storage_memory.csv"):
        shutil.copy(MEASURED / name, tmp_path)
    rows = pd.DataFrame(document("validate", str(tmp_path))["rows"])
    priced = rows[rows["mape"].notna()]
    assert len(priced) == 22
    assert priced["n"].sum() == 996
    assert (priced.loc[~priced["stack"].str.startswith("HBA"), "mape"] < 0.1).all()
    assert set(rows.loc[rows["mape"].isna(), "subset"]) == {"no requests in flight"}
