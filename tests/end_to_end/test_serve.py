"""`hwsim serve` as a user types it: every option, the JSON document, files, and what is refused."""

from __future__ import annotations

import io
import json
import re

import pandas as pd
import pytest

from hwsim.catalogue import load_device
from tests.command import document, hwsim, refused

SMALL = ("opt-125m", "h100-ideal")  # no measured kernels, so no host: a step takes what `hwsim run` says
FIXED = ("--prompt-dist", "256", "--output-dist", "8")
ONE = ("--concurrency", "1", "--num-requests", "1", *FIXED)
TIMES = ("ttft_s", "tpot_s", "tbt_s", "e2e_s", "queue_s")


def served(*options: str, of: tuple[str, str] = SMALL) -> dict:
    return document("serve", *of, *options)


def alone(*options: str, of: tuple[str, str] = SMALL) -> dict:
    """One sequence by itself, from `hwsim run`."""
    return document("run", *of, "--prompt", "256", "--output", "8", *options)


def trace(folder, *rows: tuple[float | int, ...], columns: str = "arrival_s,prompt_tokens,output_tokens") -> str:
    file = folder / "trace.csv"
    file.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(file)


def rows(folder, *options: str, of: tuple[str, str] = SMALL) -> pd.DataFrame:
    """The table of a run."""
    file = folder / "rows.csv"
    assert hwsim("serve", *of, *options, "--table", str(file))[0] == 0
    return pd.read_csv(file)


# ---- what comes out ------------------------------------------------------------------------------------------------------------


def test_a_closed_loop_of_one_is_one_run_after_another():
    one, four = alone(), served("--concurrency", "1", "--num-requests", "4", *FIXED)
    assert (four["requests"], four["completed"], four["rejected"], four["tokens"]) == (4, 4, 0, 32)
    assert four["makespan_s"] == pytest.approx(4 * one["latency_s"])
    assert four["ttft_s"]["p50"] == pytest.approx(one["ttft_s"])
    assert four["tpot_s"]["mean"] == pytest.approx(one["tpot_s"])
    assert four["e2e_s"]["p99"] == pytest.approx(one["latency_s"])
    assert four["tokens_per_s"] == pytest.approx(8 / one["latency_s"])
    assert four["energy_j"] == pytest.approx(4 * one["energy_j"])
    assert (four["utilisation"], four["concurrency"], four["rate"]) == (pytest.approx(1), 1, None)


def test_the_json_document_is_the_one_that_scripts_rely_on():
    found = served("--rate", "100", "--num-requests", "20", "--slo", "ttft=1s")
    assert (found["model"], found["arch"]) == SMALL
    for name in TIMES:
        assert set(found[name]) == {"mean", "p50", "p90", "p99"}
        assert found[name]["p50"] <= found[name]["p90"] <= found[name]["p99"]
    assert found["slo_met"] == 20
    assert found["goodput"] == pytest.approx(20 / found["makespan_s"])
    assert "capacity" not in found


def test_text_has_a_summary_and_a_table_of_latencies():
    status, out, err = hwsim("serve", *SMALL, "--rate", "200000", "--num-requests", "20", "--slo", "ttft=1s", "--capacity")
    assert (status, err) == (0, "")
    for word in ("completed", "output tokens/s", "KV cache", "preemptions", "goodput", "p99", "TTFT", "E2E", "Capacity", "kept"):
        assert word in out


def test_capacity_is_where_the_queue_of_a_single_server_grows_too_long():
    # one at a time, s seconds each: request k of n at rate R waits k (s - 1/R); the last one waits s at R = 1 / (s (1 - 1/(n-1)))
    s = document("run", *SMALL, "--phase", "prefill", "--prompt", "256")["latency_s"]
    asked = ("--max-seqs", "1", "--prompt-dist", "256", "--output-dist", "1", "--num-requests", "11", "--arrivals", "constant")
    found = served(*asked, "--slo", f"queue={s:.15f}s", "--slo-part", "1")
    expected = 1 / (0.9 * s)
    assert expected / 1.011 < found["capacity"]["rate"] <= expected * 1.000001
    assert found["rate"] == pytest.approx(found["capacity"]["rate"])  # the run that is shown is the one at that rate
    assert found["slo_met"] == 11
    assert found["capacity"]["limit"] == "at most"
    assert any("too soon for a queue to grow" in note for note in found["notes"])  # s x 10 of arrivals, a request takes up to 2 s
    kept = {one["rate"]: one["met"] == 1 for one in found["capacity"]["tried"]}
    assert kept == {rate: rate <= expected for rate in kept}


def test_capacity_of_a_load_with_a_rate_leaves_its_run_alone():
    plain, search = (
        served("--rate", "200000", "--num-requests", "10", "--slo", "ttft=1s", *more) for more in ([], ["--capacity"])
    )
    assert {name: search[name] for name in plain if name != "notes"} == {name: plain[name] for name in plain if name != "notes"}
    assert search["capacity"]["rate"] > 1e6  # ten requests at once all keep it
    assert search["capacity"]["limit"] == "none"
    assert any("even all requests at once" in note for note in search["notes"])


@pytest.mark.parametrize("load", [("--arrivals", "poisson"), ("--arrivals", "gamma:cv=3"), ("--arrivals", "constant"), ()])
def test_the_capacity_that_is_printed_keeps_the_objective_when_it_is_replayed(tmp_path, load):
    drawn = ("--num-requests", "60", "--seed", "5", "--prompt-dist", "300", "--output-dist", "1")
    timed = trace(tmp_path, *((when**1.1, 300, 1) for when in range(60)))
    options = (*drawn, *load) if load else ("--requests", timed)
    asked = ("serve", *SMALL, *options, "--capacity", "--max-seqs", "1", "--slo", "queue=1ms", "--slo-part", "0.9")
    rate, many = re.search(r"--rate (\S+) --num-requests (\S+)", hwsim(*asked)[1]).groups()
    found = document(*asked)
    assert found["capacity"]["rate"] == float(rate)
    replay = ("serve", *SMALL, *options, "--max-seqs", "1", "--slo", "queue=1ms")
    again = document(*replay, "--rate", rate, "--num-requests", many)
    assert again["slo_met"] >= 54
    tried = [one["met"] for one in found["capacity"]["tried"] if one["rate"] == found["capacity"]["rate"]]
    assert tried == [again["slo_met"] / 60]
    higher = document(*replay, "--rate", str(1.02 * float(rate)), "--num-requests", many)
    assert higher["slo_met"] < 54


def test_a_load_that_is_long_enough_has_no_note_on_its_capacity():
    # nobody may wait: at most one every s seconds, so that 20 requests arrive in 20 times the s that each takes
    asked = ("--max-seqs", "1", "--prompt-dist", "256", "--output-dist", "1", "--num-requests", "20", "--arrivals", "constant")
    found = served(*asked, "--slo", "queue=1ns", "--slo-part", "1")
    assert found["capacity"]["rate"] * found["e2e_s"]["mean"] == pytest.approx(1, rel=0.011)
    assert found["capacity"]["limit"] == "exact"
    assert not any("too soon" in note for note in found["notes"])


def test_a_rate_that_nothing_keeps_is_no_capacity():
    found = served("--num-requests", "3", *FIXED, "--slo", "ttft=1ns")
    assert (found["capacity"]["rate"], found["slo_met"], found["goodput"]) == (0, 0, 0)
    assert (found["capacity"]["limit"], found["notes"]) == ("unmet", [])


# ---- requests ------------------------------------------------------------------------------------------------------------------


def test_a_trace_is_served_as_it_is_or_faster_or_in_part(tmp_path):
    file = trace(tmp_path, (0, 256, 8), (10, 128, 4), (30, 64, 2))
    assert rows(tmp_path, "--requests", file)["arrival_s"].tolist() == [0, 10, 30]
    faster = rows(tmp_path, "--requests", file, "--rate", "0.2")  # two gaps in 30 s are 1/15 per second: three times as fast
    assert faster["arrival_s"].tolist() == pytest.approx([0, 10 / 3, 10])
    assert faster["prompt_tokens"].tolist() == [256, 128, 64]
    assert rows(tmp_path, "--requests", file, "--num-requests", "2")["output_tokens"].tolist() == [8, 4]
    assert rows(tmp_path, "--requests", file, "--concurrency", "3")["arrival_s"].tolist() == [0, 0, 0]


def test_a_file_of_lengths_is_used_in_its_order(tmp_path):
    file = trace(tmp_path, (256, 8), (128, 4), (64, 2), columns="prompt_tokens,output_tokens")
    drawn = rows(tmp_path, "--requests", file, "--rate", "4", "--arrivals", "constant")
    assert drawn["arrival_s"].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert drawn["prompt_tokens"].tolist() == [256, 128, 64]
    assert rows(tmp_path, "--requests", file, "--concurrency", "1", "--num-requests", "2")["output_tokens"].tolist() == [8, 4]
    assert served("--requests", file, "--slo", "e2e=1s")["capacity"]["rate"] > 1


def test_nothing_that_ran_took_no_energy():
    nothing = ("serve", *SMALL, *ONE[:4], "--prompt-dist", "90000000")
    found = document(*nothing)
    assert (found["completed"], found["energy_j"], found["energy_per_token_j"]) == (0, 0, None)
    text = hwsim(*nothing)[1]
    assert re.search(r"energy +0 J", text)
    assert re.search(r"energy per output token +-", text)


def test_what_cannot_fit_is_rejected_with_its_reason(tmp_path):
    file = trace(tmp_path, (0, 256, 8), (1, 90_000_000, 8))
    found = served("--requests", file)
    assert (found["completed"], found["rejected"], found["tokens"]) == (1, 1, 8)
    assert found["reasons"][0].startswith("1 request: needs more KV blocks than the ")
    table = rows(tmp_path, "--requests", file)
    assert table["status"].tolist() == ["completed", "rejected"]
    assert "KV blocks" in table["reason"][1]


def test_arrivals_and_lengths_come_from_the_seed(tmp_path):
    first, again, other = (rows(tmp_path, "--rate", "9", "--num-requests", "9", "--seed", seed) for seed in ("0", "0", "1"))
    assert first.equals(again)
    assert set(first["arrival_s"]).isdisjoint(other["arrival_s"])
    assert first["prompt_tokens"].tolist() != other["prompt_tokens"].tolist()


@pytest.mark.parametrize("arrivals", ["poisson", "gamma:cv=2", "constant"])
def test_arrivals_have_the_rate_that_was_asked_for(arrivals):
    found = served("--rate", "1000", "--num-requests", "400", "--arrivals", arrivals, "--prompt-dist", "8", "--output-dist", "1")
    # the mean of 400 gaps is off by cv / 20 on average; three times that
    assert found["rate"] == pytest.approx(1000, rel={"poisson": 0.15, "gamma:cv=2": 0.3, "constant": 1e-9}[arrivals])


def test_experts_are_drawn_only_with_routing_and_a_seed():
    moe = ("olmoe-1b-7b", "h100-ideal")
    few = (*ONE[:4], "--prompt-dist", "4", "--output-dist", "1")  # 4 tokens meet some of 64 experts, not all
    plain, seeded = (served(*few, *more, of=moe) for more in ([], ["--seed", "7"]))
    assert plain == seeded
    drawn = [served(*few, "--routing", "uniform", "--seed", seed, of=moe)["e2e_s"]["mean"] for seed in ("7", "8")]
    expected = plain["e2e_s"]["mean"]
    assert len({round(seconds / expected, 9) for seconds in (expected, *drawn)}) == 3


# ---- the service ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--weights", "int8"),
        ("--kv", "fp8"),
        ("--activations", "fp8", "--weights", "fp8"),
        ("--policy", "op-b"),
        ("--set", "memories.hbm.bandwidth=1TB/s"),
    ],
)
def test_options_of_run_mean_what_they_mean_there(options):
    assert served(*ONE, *options)["e2e_s"]["mean"] == pytest.approx(alone(*options)["latency_s"])


@pytest.mark.parametrize(
    "options", [("--parallel", "pp=2"), ("--mla", "expanded"), ("--mla", "absorbed"), ("--routing", "balanced")]
)
def test_options_of_run_for_larger_networks(options):
    large = ("deepseek-v2-lite", "2x-h100-ideal")
    assert served(*ONE, *options, of=large)["e2e_s"]["mean"] == pytest.approx(alone(*options, of=large)["latency_s"])


def test_the_stack_brings_its_host():
    gpu = ("opt-125m", "h100")
    bare, named, own = (
        served(*ONE, "--stack", "vllm", *host, of=gpu)["e2e_s"]["mean"] for host in (["--host", "none"], ["--host", "vllm"], [])
    )
    assert bare == pytest.approx(alone("--stack", "vllm", of=gpu)["latency_s"])
    assert bare < named == own


def test_chunked_prefill_is_another_word_for_a_scheduler():
    load = ("--rate", "2000", "--num-requests", "30", *FIXED)
    by = {name: served(*load, "--scheduler", name) for name in ("chunked", "mixed", "prefill-first")}
    assert len({str(found) for found in by.values()}) > 1
    assert by["chunked"] == served(*load) == served(*load, "--chunked-prefill")
    assert by["prefill-first"] == served(*load, "--no-chunked-prefill")
    assert by["mixed"] == served(*load, "--no-chunked-prefill", "--scheduler", "mixed")
    assert by["prefill-first"]["tbt_s"]["p99"] > by["chunked"]["tbt_s"]["p50"]


def test_a_prompt_above_the_tokens_of_a_step_takes_two():
    assert served(*ONE)["steps"] == 8
    assert served(*ONE, "--max-batched-tokens", "128")["steps"] == 9


def test_one_sequence_at_a_time_takes_as_long_as_all_of_them(tmp_path):
    file = trace(tmp_path, *[(0, 256, 8)] * 4)
    assert served("--requests", file, "--max-seqs", "1")["makespan_s"] == pytest.approx(4 * alone()["latency_s"])
    assert served("--requests", file)["makespan_s"] < 2 * alone()["latency_s"]


def test_blocks_of_the_cache_are_what_memory_leaves():
    half, most = (served(*ONE, "--kv-fraction", part) for part in ("0.5", "0.9"))
    block = 16 * document("show", SMALL[0])["kv_bytes_per_token"]
    memory = float(load_device(SMALL[1]).memories["hbm"].capacity)
    assert most["kv_blocks"] - half["kv_blocks"] == pytest.approx(0.4 * memory / block, abs=1)
    wide = served(*ONE, "--block", "32")
    assert (wide["kv_block_tokens"], wide["kv_blocks"]) == (32, pytest.approx(most["kv_blocks"] / 2, abs=1))
    assert most["kv_peak"] * most["kv_blocks"] == pytest.approx(17)  # 256 + 8 - 1 tokens


def test_prefix_caching_skips_what_the_cache_holds(tmp_path):
    file = trace(tmp_path, (0, 256, 8, 255), columns="arrival_s,prompt_tokens,output_tokens,prefix_cached_tokens")
    hit, miss = (served("--requests", file, *more)["ttft_s"]["mean"] for more in ([], ["--no-prefix-caching"]))
    assert miss == pytest.approx(alone()["ttft_s"])
    assert hit == pytest.approx(document("run", *SMALL, "--phase", "decode", "--prompt", "255")["latency_s"])


def test_replicas_and_routers(tmp_path):
    # a long one, a short one, and one when the short one is done and the long one is not
    file = trace(tmp_path, (0, 64, 2000), (0, 64, 1), (0.02, 64, 1))
    turns, loads = (rows(tmp_path, "--requests", file, "--replicas", "2", "--router", r) for r in ("round-robin", "least-loaded"))
    assert turns["replica"].tolist() == [0, 1, 0]
    assert loads["replica"].tolist() == [0, 1, 1]


def test_disaggregation_decodes_elsewhere(tmp_path):
    file = trace(tmp_path, (0, 256, 8), (0, 256, 8), (0, 256, 8))
    table = rows(tmp_path, "--requests", file, "--disaggregate", "1:2", of=("opt-125m", "2x-h100-ideal"))
    assert table["replica"].tolist() == [1, 2, 1]  # 0 only prefills


# ---- files ---------------------------------------------------------------------------------------------------------------------


def test_tables_and_report_are_written_whole(tmp_path):
    csv, parquet, page = (tmp_path / "deep" / name for name in ("rows.csv", "rows.parquet", "page.html"))
    load = ("serve", *SMALL, "--rate", "200000", "--num-requests", "12", "--slo", "ttft=1s", "--capacity")
    status, out, err = hwsim(*load, "--table", str(csv), "--report", str(page))
    assert (status, err) == (0, "")
    assert f"wrote {csv}" in out
    assert document(*load, "--table", str(parquet))["requests"] == 12
    pd.testing.assert_frame_equal(pd.read_csv(csv, keep_default_na=False), pd.read_parquet(parquet), check_exact=False)
    assert len(pd.read_parquet(parquet)) == 12
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["page.html", "rows.csv", "rows.parquet"]
    text = page.read_text()
    for word in (
        "TTFT: time to first token",
        "Throughput",
        "KV cache in use",
        "Batch size and queue length",
        "Goodput",
        "objective",
    ):
        assert word in text
    markup = re.sub(r"(?s)(<script[^>]*>).*?</script>", r"\1", text)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", markup)


def test_a_report_of_nothing_says_so(tmp_path):
    page = tmp_path / "page.html"
    assert (
        hwsim("serve", *SMALL, "--rate", "1", "--num-requests", "2", "--prompt-dist", "90000000", "--report", str(page))[0] == 0
    )
    assert "No request was completed" in page.read_text()


def test_inputs_are_never_written_over(tmp_path):
    file = trace(tmp_path, (0, 256, 8))
    before = (tmp_path / "trace.csv").read_text()
    assert "is read" in refused("serve", *SMALL, "--requests", file, "--table", file)
    assert "is read" in refused("serve", *SMALL, "--rate", "1", *FIXED[:2], "--output-dist", f"empirical:{file}", "--table", file)
    assert (tmp_path / "trace.csv").read_text() == before
    same = str(tmp_path / "same.csv")
    assert "is written already" in refused("serve", *SMALL, *ONE, "--table", same, "--report", same)
    assert not (tmp_path / "same.csv").exists()


def test_a_folder_in_the_way_leaves_nothing_behind(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    assert "a folder" in refused("serve", *SMALL, *ONE, "--table", str(tmp_path / "rows.csv"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "rows.csv"]


def test_files_that_cannot_be_written_are_refused_before_anything_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("hwsim.serving.asked.outcome", lambda *asked: pytest.fail("served"))
    file = trace(tmp_path, (0, 256, 8))
    assert "is a folder" in refused("serve", *SMALL, *ONE, "--report", str(tmp_path))
    assert "trace.csv is no folder" in refused("serve", *SMALL, *ONE, "--table", f"{file}/deep/rows.csv")


def test_progress_goes_to_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("tests.command.io.StringIO", Terminal)
    status, out, err = hwsim("serve", *SMALL, *ONE, "--json")
    assert status == 0
    assert json.loads(out)["completed"] == 1
    assert "serving" in err


# ---- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["no requests", "--requests", "--rate", "--concurrency", "--slo"]),
        (("--rate", "0"), ["--rate", "0"]),
        (("--rate", "-1"), ["--rate", "-1"]),
        (("--rate", "nan"), ["--rate", "nan"]),
        (("--rate", "1e9"), ["--rate", "1e+09", "below 1e9"]),
        (("--requests", "."), ["a folder"]),
        ((*ONE, "--block", "90000000"), ["a block of 90000000 tokens", "TB", "--block"]),
        (("--rate", "fast"), ["--rate", "fast", "a number"]),
        (("--rate", "1", "--concurrency", "2"), ["--rate 1", "--concurrency 2", "one of them"]),
        (("--concurrency", "0"), ["concurrency", "0"]),
        (("--concurrency", "1.5"), ["--concurrency", "1.5", "a whole number"]),
        (("--concurrency", "2", "--arrivals", "constant"), ["--arrivals constant", "--concurrency"]),
        (("--rate", "1", "--num-requests", "0"), ["--num-requests", "0"]),
        (("--rate", "1", "--arrivals", "sometimes"), ["arrivals", "sometimes", "poisson"]),
        (("--rate", "1", "--arrivals", ""), ["--arrivals", "''"]),
        (("--rate", "1", "--prompt-dist", "gaussian:mean=5"), ["prompt-dist", "gaussian:mean=5", "sd=NUMBER"]),
        (("--rate", "1", "--output-dist", "short"), ["output-dist", "short", "fixed:N"]),
        (("--rate", "1", "--seed", "-1"), ["--seed", "-1"]),
        (("--requests", "nowhere.csv"), ["nowhere.csv", "no such file"]),
        (("--requests", "nowhere.csv", "--prompt-dist", "5"), ["--prompt-dist", "nowhere.csv"]),
        ((*ONE, "--scheduler", "fifo"), ["scheduler", "fifo", "chunked"]),
        ((*ONE, "--scheduler", "mixed", "--chunked-prefill"), ["--chunked-prefill", "--scheduler mixed"]),
        ((*ONE, "--scheduler", "chunked", "--no-chunked-prefill"), ["--no-chunked-prefill", "--scheduler chunked"]),
        ((*ONE, "--max-seqs", "0"), ["max-seqs", "0"]),
        ((*ONE, "--max-batched-tokens", "0"), ["max-batched-tokens", "0"]),
        ((*ONE, "--block", "-16"), ["block", "-16"]),
        ((*ONE, "--kv-fraction", "1.1"), ["kv-fraction", "1.1"]),
        ((*ONE, "--kv-fraction", "0.000001"), ["hbm", "--kv-fraction"]),
        ((*ONE, "--replicas", "0"), ["replicas", "0"]),
        ((*ONE, "--router", "random"), ["router", "random", "least-loaded"]),
        ((*ONE, "--disaggregate", "1"), ["disaggregate", "'1'", "PREFILL:DECODE"]),
        ((*ONE, "--disaggregate", ""), ["disaggregate", "''"]),
        ((*ONE, "--disaggregate", "1:0"), ["disaggregate", "0"]),
        ((*ONE, "--disaggregate", "1:1", "--replicas", "2"), ["disaggregate", "replicas"]),
        ((*ONE, "--host", "mainframe"), ["host", "mainframe", "vllm"]),
        ((*ONE, "--slo", "ttft=2"), ["2", "s"]),
        ((*ONE, "--slo", "speed=2s"), ["slo", "speed", "ttft=TIME"]),
        ((*ONE, "--slo", "ttft=2s", "--slo-part", "1.5"), ["--slo-part", "1.5"]),
        ((*ONE, "--slo-part", "0.5"), ["--slo-part 0.5", "--slo"]),
        ((*ONE, "--capacity"), ["--capacity", "--slo"]),
        ((*ONE, "--slo", "ttft=2s", "--capacity"), ["--capacity", "--concurrency 1"]),
        ((*ONE, "--table", "rows.xlsx"), ["--table", "rows.xlsx", ".parquet"]),
        ((*ONE, "--weights", "fp7"), ["fp7"]),
        ((*ONE, "--routing", "", "--seed", "1"), ["''"]),
    ],
)
def test_one_line_says_what_is_wrong(options, words):
    line = refused("serve", *SMALL, *options)
    for word in [*words, "accepted"]:
        assert word in line


def test_files_that_say_otherwise_are_refused(tmp_path):
    timed = trace(tmp_path, (0, 256, 8), (1, 256, 8))
    assert "has arrival times" in refused("serve", *SMALL, "--requests", timed, "--arrivals", "constant", "--rate", "1")
    assert "has 2; accepted" in refused("serve", *SMALL, "--requests", timed, "--num-requests", "3")
    at_once = trace(tmp_path, (5, 256, 8), (5, 256, 8))
    assert "all arrive at once" in refused("serve", *SMALL, "--requests", at_once, "--rate", "1")
    single = trace(tmp_path, (5, 256, 8))
    assert "a single request cannot be stretched" in refused("serve", *SMALL, "--requests", single, "--rate", "1")
    timed = trace(tmp_path, (0, 256, 8), (1, 256, 8))
    assert "2 requests arrive within" in refused("serve", *SMALL, "--requests", timed, "--rate", "1e-10")
    lengths = trace(tmp_path, (256, 8), columns="prompt_tokens,output_tokens")
    line = refused("serve", *SMALL, "--requests", lengths)
    assert "lengths without arrival_s" in line
    assert "--rate" in line
    assert "an encoder" in refused("serve", "bert-base", "h100-ideal", *ONE)


def test_a_closed_loop_says_that_it_does_not_use_arrival_times(tmp_path):
    file = trace(tmp_path, (0, 8, 2), (9, 8, 2))
    assert any("arrival times" in note for note in served("--requests", file, "--concurrency", "1")["notes"])
    assert not any("arrival times" in note for note in served("--requests", file)["notes"])
