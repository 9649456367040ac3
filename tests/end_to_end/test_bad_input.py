"""Files and options from a stranger: exit status 2 and one line with file, field, value and what is accepted."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hwsim.catalogue import root
from tests.command import hwsim, refused

DEVICE = {
    "name": "mine",
    "source": "test",
    "memories": {"hbm": {"capacity": "80 GiB", "bandwidth": "3350 GB/s"}},
    "units": {
        "tensor": {"does": ["matmul"], "memory": "hbm", "peak": {"bf16": "989 TFLOP/s"}},
        "vector": {"does": ["vector"], "memory": "hbm", "peak": {"fp32": "67 TFLOP/s"}},
    },
}
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip


def device_file(folder: Path, changes: dict[str, object]) -> str:
    """DEVICE with dotted paths replaced (None removes) as a file."""
    data = json.loads(json.dumps(DEVICE))
    for path, value in changes.items():
        *way, last = path.split(".")
        node = data
        for step in way:
            node = node[step]
        if value is None:
            del node[last]
        else:
            node[last] = value
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def run(model: str, arch: str, *options: str) -> str:
    return refused("run", model, arch, "--phase", "decode", *options)


def test_the_device_file_itself_is_good(tmp_path):
    assert hwsim("run", "llama-3.1-8b", device_file(tmp_path, {}), "--phase", "decode")[0] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memories.hbm.bandwith": "1 TB/s"}, ["memories.hbm.bandwith", "unknown field", "bandwidth"]),
        ({"colour": "red"}, ["colour", "unknown field"]),
        ({"units.tensor.warps": 4}, ["units.tensor.warps", "unknown field"]),
        ({"memories.hbm.bandwidth": "3350 GFLOP/s"}, ["memories.hbm.bandwidth", "3350 GFLOP/s", "B/s"]),
        ({"memories.hbm.bandwidth": "3350"}, ["memories.hbm.bandwidth", "'3350'", "B/s"]),
        ({"memories.hbm.bandwidth": 3350}, ["memories.hbm.bandwidth", "3350", "B/s"]),
        ({"memories.hbm.bandwidth": "-1 GB/s"}, ["memories.hbm.bandwidth", "-1 GB/s", "positive"]),
        ({"memories.hbm.bandwidth": "0 GB/s"}, ["memories.hbm.bandwidth", "positive"]),
        ({"memories.hbm.bandwidth": ".inf"}, ["memories.hbm.bandwidth", ".inf"]),
        ({"memories.hbm.bandwidth": float("nan")}, ["memories.hbm.bandwidth", "nan"]),
        ({"memories.hbm.bandwidth": "1e999 GB/s"}, ["memories.hbm.bandwidth", "finite"]),
        ({"memories.hbm.bandwidth": ["3350 GB/s"]}, ["memories.hbm.bandwidth", "3350 GB/s"]),
        ({"memories.hbm.efficiency": 1.2}, ["memories.hbm.efficiency", "1.2", "at most 1"]),
        ({"memories.hbm.capacity": None}, ["memories.hbm.capacity", "missing"]),
        ({"memories": None}, ["memories", "missing"]),
        ({"units": None}, ["units", "missing"]),
        ({"units": {}}, ["units", "at least one"]),
        ({"units.tensor.memory": "dram"}, ["units.tensor.memory", "dram", "hbm"]),
        ({"units.tensor.peak": {}}, ["units.tensor", "peak"]),
        ({"units.tensor.peak": {"bf61": "1 TFLOP/s"}}, ["units.tensor", "bf61", "bf16"]),
        ({"units.tensor.does": ["dance"]}, ["units.tensor.does", "dance", "matmul"]),
        ({"units.tensor.cost": "magic"}, ["units.tensor.cost", "magic", "roofline"]),
        ({"units.tensor.cost": "../../etc/passwd"}, ["units.tensor.cost", "roofline"]),
        ({"memories.hbm.bandwidth": {"value": "1 TB/s"}}, ["memories.hbm.bandwidth", "source, fitted or assumed"]),
        ({"memories.hbm.bandwidth": {"value": "1 TB/s", "source": "a", "assumed": "b"}}, ["memories.hbm.bandwidth"]),
        ({"extends": "nothing-like-it"}, ["nothing-like-it", "arch"]),
        ({"extends": "../../../etc/passwd"}, ["extends", "a name in arch/"]),
        ({"extends": ["h100"]}, ["extends"]),
        ({"count": 0}, ["count", "0"]),
        ({"name": ["x"]}, ["name", "x"]),
    ],
)
def test_device_fields(tmp_path, changes, words):
    file = device_file(tmp_path, changes)
    error = run("llama-3.1-8b", file)
    for word in [
        *words,
        "accepted" if "unknown field" not in words and "missing" not in words else "",
        file if "extends" not in words else "",
    ]:
        assert word in error


def test_extends_in_a_circle(tmp_path):
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}\n")
    assert "circle (a -> b -> c -> a)" in run("llama-3.1-8b", str(tmp_path / "a.yaml"))


def test_extends_itself(tmp_path):
    (tmp_path / "me.yaml").write_text("extends: me\n")
    assert "circle" in run("llama-3.1-8b", str(tmp_path / "me.yaml"))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases"),
        ("a: !!python/object/apply:os.system ['touch /tmp/pwned']", "tag"),
        ("a: !!binary aGVsbG8=", "tag"),
        ("[" * 500 + "]" * 500, "deeper than"),
        ("a: {" * 3000, "deeper than"),
        ("x: [" + "1," * 300_000 + "]", "more than"),
        ("a: 1\na: 2", "duplicate key"),
        ("a: [1, 2", "not valid YAML"),
        ("\x00\x01\x02", "not valid YAML"),
        ("- 1\n- 2", "accepted: a mapping"),
        ("just words", "accepted: a mapping"),
        ("", "accepted: a mapping"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("1: 2", "accepted: a mapping"),
        ("x: " + "y" * 3_000_000, "MiB"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    error = run("llama-3.1-8b", str(file))
    assert words in error
    assert str(file) in error
    assert len(error) < 500


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, ["hidden_size", "missing"]),
        ({"hidden_size": -4096}, ["hidden_size", "-4096"]),
        ({"hidden_size": 1e300}, ["hidden_size", "1e+300"]),
        ({"hidden_size": "4096"}, ["hidden_size", "'4096'"]),
        ({"hidden_size": True}, ["hidden_size", "True"]),
        ({"hidden_size": 4097.5}, ["hidden_size", "4097.5"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers", "1000000000", "1000"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
        ({"num_attention_heads": 33}, ["num_attention_heads", "33"]),
        ({"num_key_value_heads": 7}, ["num_key_value_heads", "7", "32"]),
        ({"vocab_size": []}, ["vocab_size"]),
        ({"torch_dtype": "bfloat17"}, ["torch_dtype", "bfloat17", "bfloat16"]),
        ({"torch_dtype": 16}, ["torch_dtype", "16"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "yes", "true or false"]),
        ({"layer_types": ["full_attention"]}, ["layer_types", "32"]),
        ({"layer_types": ["mamba"] * 32}, ["layer_types", "mamba"]),
        ({"quantization_config": {"quant_method": "magic"}}, ["quant_method", "magic", "fp8"]),
        ({"quantization_config": 8}, ["quantization_config", "8"]),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, ["num_experts_per_tok", "9"]),
        ({"is_encoder_decoder": True}, ["is_encoder_decoder"]),
        ({"mamba_d_state": 16}, ["mamba_d_state", "state-space"]),
    ],
)
def test_config_fields(tmp_path, changes, words):
    file = tmp_path / "config.json"
    data = {**LLAMA, **changes}
    if changes.get("hidden_size", 0) is None:
        del data["hidden_size"], data["model_type"]
    file.write_text(json.dumps(data))
    error = run(str(file), "h100")
    for word in [*words, str(file), "accepted"]:
        assert word in error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"hidden_size": NaN}', "NaN"),
        ('{"hidden_size": Infinity}', "Infinity"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "accepted"),
        ('{"a":' * 200 + "1" + "}" * 200, "deeper than"),
        ('{"a":' * 100_000, "deep"),
        ("[1, 2, 3]", "accepted: a mapping"),
        ('{"a": 1', "not valid JSON"),
        ('{"x": "' + "y" * 3_000_000 + '"}', "MiB"),
        ('{"model_type": "resnet", "hidden_sizes": [256, 512], "num_channels": 3, "depths": [3, 4]}', "hidden_size"),
        (
            '{"model_type": "swinv2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224}',
            "vocab_size",
        ),
        ("{}", "hidden_size"),
    ],
)
def test_json_that_is_refused(tmp_path, text, words):
    file = tmp_path / "config.json"
    file.write_text(text)
    error = run(str(file), "h100")
    assert words in error
    assert str(file) in error


def test_ten_megabytes(tmp_path):
    file = tmp_path / "big.yaml"
    file.write_bytes(b"name: x\n" + b"# padding\n" * 1_000_000)
    assert "at most 2 MiB" in run("llama-3.1-8b", str(file))


def test_folder_noise_and_nothing(tmp_path):
    (tmp_path / "noise.yaml").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "noise.json").write_bytes(bytes(range(128, 256)) * 40)
    assert "not a regular file" in run("llama-3.1-8b", str(tmp_path))
    assert "not a regular file" in run(str(tmp_path), "h100")
    assert "noise.yaml: not UTF-8" in run("llama-3.1-8b", str(tmp_path / "noise.yaml"))
    assert "noise.json: not UTF-8" in run(str(tmp_path / "noise.json"), "h100")
    assert "no such file" in run(str(tmp_path / "none.json"), "h100")
    assert "not a regular file" in run("llama-3.1-8b", "/dev/zero")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "0"], ["batch", "0", "accepted"]),
        (["--batch", "-3"], ["batch", "-3", "accepted"]),
        (["--batch", "1000000"], ["memory hbm", "too much", "kv"]),
        (["--batch", "many"], ["batch", "many"]),
        (["--prompt", "1e3"], ["prompt", "1e3"]),
        (["--weights", "int4_g7"], ["int4_g7", "accepted"]),
        (["--kv", "fp9"], ["fp9", "accepted"]),
        (["--policy", "slowest"], ["slowest", "fastest", "op-b", "pin"]),
        (["--policy", "op-b:ridge=-1"], ["op-b:ridge=-1", "positive"]),
        (["--policy", "pin:unit=npu"], ["npu", "tensor", "vector"]),
        (["--parallel", "tp=2"], ["tp", "1 device"]),
        (["--parallel", "tp=two"], ["tp=two", "accepted"]),
        (["--routing", "zipf"], ["zipf", "accepted"]),
        (["--set", "memories.hbm.bandwith=1TB/s"], ["memories.hbm.bandwith", "bandwith", "accepted", "bandwidth"]),
        (["--set", "memories.hbm=1TB/s"], ["memories.hbm"]),
        (["--set", "memories.hbm.bandwidth.x=1"], ["memories.hbm.bandwidth.x", "accepted"]),
        (["--set", "memories.hbm.bandwidth"], ["memories.hbm.bandwidth", "PATH=VALUE"]),
        (["--set", "memories.hbm.bandwidth=3"], ["memories.hbm.bandwidth", "'3'", "B/s"]),
        (["--set", "name=x"], ["name"]),
        (["--phase", "training"], ["training", "prefill"]),
        (["--sequences", "1:2"], ["sequences", "mixed"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--frobnicate"], ["frobnicate"]),
    ],
)
def test_options(options, words):
    error = run("llama-3.1-8b", "h100", *options)
    for word in words:
        assert word in error


def test_names_that_are_nearly_right():
    assert "did you mean 'h100'" in run("llama-3.1-8b", "h1000")
    assert "did you mean 'mixtral-8x7b'" in run("mixtrall-8x7b", "h100")
    assert "16x-v100s: 16 devices are not joined by any link" in run("llama-3.1-8b", "16x-v100s", "--parallel", "tp=16")
    assert "accepted" in run("llama-3.1-8b", "0x-h100")
    assert "accepted" in run("../models/llama-3.1-8b", "h100")


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "folder.html").mkdir()
    assert "is a folder" in run("llama-3.1-8b", "h100", "--report", str(tmp_path / "folder.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


@pytest.mark.parametrize("text", [BOMB, "[" * 200_000, "x: [" + "1," * 900_000 + "]", "a: &a {b: *a}"])
def test_memory_stays_bounded(tmp_path, text):
    """In a process of its own that may not have more than 1 GB."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1_000_000_000, 1_000_000_000))

    command = [sys.executable, "-m", "hwsim.cli", "run", "llama-3.1-8b", str(file)]
    environment = {"OPENBLAS_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=limit, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_strangers_claims_file_never_runs_code(tmp_path):
    (tmp_path / "study.py").write_text("raise SystemExit('study.py of a stranger was run')")
    claim = {
        "id": "a", "system": "s", "claim": "c", "metric": "m", "value": 1, "unit": "x", "provenance": "text",
        "source": {"paper": "p"}, "run": {"model": "llama-3.1-8b"}, "measure": "mine", "status": "reproduced",
    }  # fmt: skip
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim]))
    assert "measure 'mine'" in refused("check", str(tmp_path / "claims.yaml"))


def test_nothing_that_ships_is_a_symbolic_link_out_of_the_project():
    assert not [path for folder in ("arch", "models", "studies") for path in root(folder).rglob("*") if path.is_symlink()]
