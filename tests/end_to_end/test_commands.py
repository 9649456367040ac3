"""Whole commands as a user types them, in this process: what they print, write and return."""

from __future__ import annotations

import json
import math
import re

import pytest

from hwsim.catalogue import names, root
from tests.command import document, hwsim

LLAMA = ("run", "llama-3.1-8b", "h100")


def test_run_prints_where_the_time_goes():
    status, out, err = hwsim(*LLAMA, "--phase", "decode", "--batch", "8")
    assert (status, err) == (0, "")
    for word in ("llama-3.1-8b", "h100", "latency", "ffn.up", "memory", "tensor"):
        assert word in out


def test_run_json_is_the_document_that_scripts_rely_on():
    run = document(*LLAMA, "--phase", "generate", "--batch", "4", "--prompt", "256", "--output", "32")
    assert (run["model"], run["arch"], run["tokens"]) == ("llama-3.1-8b", "h100", 128)
    assert run["tokens_per_s"] == pytest.approx(128 / run["latency_s"])
    assert run["latency_s"] == pytest.approx(run["ttft_s"] + 31 * run["tpot_s"])
    for op in run["ops"]:
        assert {"name", "unit", "start_s", "end_s", "op", "bytes", "joules", "bound"} <= set(op)
        assert 0 <= op["start_s"] <= op["end_s"] <= run["latency_s"] * (1 + 1e-12)
    assert sum(op["joules"] for op in run["ops"]) == pytest.approx(run["energy_j"])


def test_a_longer_generation_is_its_shorter_one_and_the_steps_after_it():
    short, long = (document(*LLAMA, "--batch", "2", "--prompt", "100", "--output", str(n)) for n in (8, 9))
    step = document(*LLAMA, "--phase", "decode", "--batch", "2", "--prompt", "107")
    assert long["latency_s"] - short["latency_s"] == pytest.approx(step["latency_s"], rel=1e-9)
    assert long["energy_j"] - short["energy_j"] == pytest.approx(step["energy_j"], rel=1e-9)


def test_compare_gives_ratios_to_the_first():
    both = document("compare", "mixtral-8x7b", "4x-h100", "4x-h200", "--batch", "32", "--phase", "decode")["runs"]
    assert [run["arch"] for run in both] == ["4x-h100", "4x-h200"]
    assert both[0]["speedup"] == both[0]["energy_ratio"] == 1
    assert both[1]["speedup"] == pytest.approx(both[0]["latency_s"] / both[1]["latency_s"])
    assert 1 < both[1]["speedup"] < 4800 / 3350


def test_roofline_points_lie_under_their_roofs(tmp_path):
    page = tmp_path / "roofline.html"
    points = document("roofline", "llama-3.1-8b", "a100-ideal", "--phase", "prefill", "--html", str(page))["ops"]
    assert {"qkv", "ffn.up"} <= {point["name"] for point in points}
    assert all(0 < point["attained_op_s"] <= point["roof_op_s"] * (1 + 1e-9) for point in points)
    assert "<html" in page.read_text()


def test_report_and_perfetto_are_written_whole(tmp_path):
    report, trace = tmp_path / "deep" / "r.html", tmp_path / "t.json"
    status, out, _ = hwsim(*LLAMA, "--phase", "decode", "--report", str(report), "--perfetto", str(trace))
    assert status == 0
    assert f"wrote {report}" in out.replace("\n", "")
    assert json.loads(trace.read_text())["traceEvents"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["r.html", "t.json"]
    page = re.sub(
        r"(?s)(<script[^>]*>).*?</script>", r"\1", report.read_text()
    )  # what the browser would load, not what plotly.js says
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "default-src 'none'" in page


def test_list_names_what_there_is():
    everything = document("list")
    assert everything == {folder: names(folder) for folder in ("models", "arch", "studies")}
    assert hwsim("list", "arch")[1].split() == names("arch")
    assert {"mixtral-8x7b", "llama-2-7b", "llama-3.1-8b", "opt-6.7b", "glam-143b", "grok-1", "deepseek-v3"} <= set(
        everything["models"]
    )
    assert {"a100", "h100", "h200", "v100s", "rtx-4090"} <= set(everything["arch"])


def test_show_model_counts():
    facts = document("show", "mixtral-8x7b")
    assert facts["parameters"] == pytest.approx(46.7e9, rel=0.001)
    assert facts["active_parameters"] == pytest.approx(12.9e9, rel=0.003)
    assert facts["kv_bytes_per_token"] == 131072


@pytest.mark.parametrize("name", ["h100", "a100-ideal"])
def test_show_device_gives_every_number_its_source(name):
    numbers = document("show", name)["numbers"]
    assert numbers
    assert all(number["source"] for number in numbers)
    assert {"memories.hbm.bandwidth", "units.tensor.peak.bf16"} <= {number["path"] for number in numbers}


def test_set_changes_one_number_and_no_other():
    plain, twice = (
        document("run", "llama-3.1-8b", "a100-ideal", "--phase", "decode", *change)
        for change in ([], ["--set", "memories.hbm.bandwidth=4078 GB/s"])
    )
    assert plain["latency_s"] == pytest.approx(2 * twice["latency_s"], rel=1e-9)  # decode at batch 1: every op is bound by memory


def test_formats_change_bytes():
    fp16, int4 = (document(*LLAMA, "--phase", "decode", *change) for change in ([], ["--weights", "int4_g128"]))

    def moved(run, name):
        return next(op["bytes"] for op in run["ops"] if op["name"].endswith(name))

    assert moved(int4, "ffn.up") / moved(fp16, "ffn.up") == pytest.approx((4 + 16 / 128) / 16, rel=1e-3)


def test_mixed_batches():
    run = document(*LLAMA, "--phase", "mixed", "--sequences", "512:0,1:2048*31")
    assert run["tokens"] == 512 + 31
    assert {"dense.attention.prefill", "dense.attention.decode"} <= {op["name"] for op in run["ops"]}


def test_check_of_the_first_study():
    report = document("check", "deepseek_v3")
    assert report["summary"]["failed"] == 0
    assert report["summary"]["reproduced"] >= 9
    for claim in report["claims"]:
        assert set(claim) >= {
            "id", "system", "metric", "published", "simulated", "error", "tolerance", "provenance", "verdict", "role", "reason",
        }  # fmt: skip
        assert claim["verdict"] in ("reproduced", "missed", "not-modelled")
        assert claim["verdict"] == "reproduced" or claim["reason"]


@pytest.mark.parametrize("change", [{"value": 80.0}, {"status": "missed", "reason": "made up"}])
def test_check_fails_when_the_file_is_no_longer_true(tmp_path, change):
    claim = {
        "id": "kv", "system": "s", "claim": "KV cache per token", "metric": "memory", "value": 70.272, "unit": "KB (1000 B)",
        "source": {"paper": "p"}, "provenance": "text", "run": {"model": "deepseek-v3"}, "measure": "kv_bytes_per_token",
        "status": "reproduced",
    }  # fmt: skip
    file = tmp_path / "claims.yaml"
    file.write_text(json.dumps([claim]))
    assert hwsim("check", str(file))[0] == 0
    file.write_text(json.dumps([claim | change]))
    assert hwsim("check", str(file))[0] == 1


def test_help_names_every_command():
    out = hwsim("--help")[1]
    assert all(command in out for command in ("run", "serve", "compare", "roofline", "check", "list", "show"))


def test_the_example_config_is_the_one_in_models():
    example = root("arch").parent / "docs" / "examples" / "mixtral-8x7b" / "config.json"
    if not example.is_file():
        pytest.skip("the examples are in a checkout only")
    one, other = document("show", str(example)), document("show", "mixtral-8x7b")
    assert {key: one[key] for key in ("parameters", "kv_bytes_per_token", "layers")} == {
        key: other[key] for key in ("parameters", "kv_bytes_per_token", "layers")
    }
    assert math.isclose(one["active_parameters"], 12.88e9, rel_tol=1e-3)
