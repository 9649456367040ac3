"""Traces, distributions and settings of services from a stranger: one line with file, column, row, value and what is accepted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hwsim.catalogue import load_device
from hwsim.errors import CapacityError, InputError
from hwsim.job import Job
from hwsim.serving import Service, drawn_requests, make_requests, read_trace, serve
from hwsim.serving.drawn import arrival_times, lengths
from hwsim.serving.requests import has_arrivals, read_lengths
from hwsim.serving.service import read_pools

HEAD = "arrival_s,prompt_tokens,output_tokens\n"


def refused(call, *arguments: object) -> str:
    """The message of an InputError, which is one short line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert "accepted" in message
    return message


def trace_of(folder, content: str | bytes, name: str = "trace.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["not a table"]),
        ("\n\n", ["not a table"]),
        (HEAD, ["0 rows"]),
        ("arrival_s,prompt_tokens\n0,1\n", ["output_tokens", "missing"]),
        ("prompt_tokens,output_tokens\n1,1\n", ["arrival_s", "missing"]),
        ("a,b\n1,2\n", ["prompt_tokens", "missing", "a, b"]),
        (HEAD + "0,1,1\n-1,1,1\n", ["arrival_s", "row 2", "-1"]),
        (HEAD + "0,1,1\n1,0,1\n", ["prompt_tokens", "row 2", "'0'"]),
        (HEAD + "0,1,0\n", ["output_tokens", "row 1", "'0'"]),
        (HEAD + "0,1,-5\n", ["output_tokens", "row 1", "-5"]),
        (HEAD + "0,1,\n", ["output_tokens", "row 1", "nan"]),
        (HEAD + "nan,1,1\n", ["arrival_s", "row 1", "nan"]),
        (HEAD + "inf,1,1\n", ["arrival_s", "row 1", "inf"]),
        (HEAD + "0,inf,1\n", ["prompt_tokens", "row 1", "inf"]),
        (HEAD + "0,1.5,1\n", ["prompt_tokens", "row 1", "1.5", "whole"]),
        (HEAD + "0,1,1\n0,many,1\n", ["prompt_tokens", "row 2", "many"]),
        (HEAD + "12:30:00,1,1\n", ["arrival_s", "row 1", "12:30:00"]),
        (HEAD + f"0,{10**30},1\n", ["prompt_tokens", "row 1"]),
        (HEAD + "0,1,1e9\n", ["output_tokens", "row 1"]),
        (HEAD + "1e300,1,1\n", ["arrival_s", "row 1"]),
        (HEAD + "0,True,1\n", ["prompt_tokens", "row 1", "True"]),
        (HEAD + "False,1,1\n", ["arrival_s", "row 1", "False"]),
        (HEAD + "0,1,1,7\n", ["not a table"]),
        (HEAD + "0,1,1\n0,1,1,7\n", ["not a table"]),
        ("arrival_s,prompt_tokens,output_tokens,prompt_tokens\n0,1,1,5\n", ["prompt_tokens", "twice"]),
        ("arrival_s,prompt_tokens,output_tokens,prefix_cached_tokens\n0,5,1,6\n", ["prefix_cached_tokens", "row 1", "6", "5"]),
        ("arrival_s,prompt_tokens,output_tokens,prefix_cached_tokens\n0,5,1,-1\n", ["prefix_cached_tokens", "row 1", "-1"]),
        (b"\x00\x01\xff\xfe" * 100, ["trace.csv"]),
        (bytes(range(256)) * 50, ["trace.csv"]),
        (b"PK\x03\x04" + b"\x80" * 200, ["trace.csv"]),
    ],
)  # fmt: skip
def test_traces_that_are_refused(tmp_path, content, words):
    file = trace_of(tmp_path, content)
    error = refused(read_trace, file)
    for word in [*words, str(file)]:
        assert word in error


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", ["trace.jsonl"]),
        ("{", ["not a table"]),
        ("[" * 5000, ["not a table"]),
        ("[1, 2, 3]", ["no JSON objects"]),
        ('[{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}]', ["no JSON objects"]),
        ('"text"', ["trace.jsonl"]),
        ("7", ["trace.jsonl"]),
        ('{"arrival_s": 0, "prompt_tokens": [1, 2], "output_tokens": 1}', ["prompt_tokens", "row 1", "[1, 2]"]),
        ('{"arrival_s": 0, "prompt_tokens": {"a": {"b": 1}}, "output_tokens": 1}', ["prompt_tokens", "row 1"]),
        ('{"arrival_s": 0, "prompt_tokens": true, "output_tokens": 1}', ["prompt_tokens", "row 1", "True"]),
        ('{"arrival_s": 0, "prompt_tokens": null, "output_tokens": 1}', ["prompt_tokens", "row 1"]),
        ('{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n{"arrival_s": 0}', ["prompt_tokens", "row 2"]),
        ('{"arrival_s": 0, "prompt_tokens": 1, "output_tokens": 1}\n{"arrival_s": 0, "prompt_tokens": true, "output_tokens": 1}',
         ["prompt_tokens", "row 2", "True"]),
        ('{"arrival_s": 1e999, "prompt_tokens": 1, "output_tokens": 1}', ["trace.jsonl"]),
        ('{"arrival_s": 0, "prompt_tokens": 1%s, "output_tokens": 1}' % ("0" * 400), ["trace.jsonl"]),
    ],
)  # fmt: skip
def test_jsonl_that_is_refused(tmp_path, rows, words):
    file = trace_of(tmp_path, rows, "trace.jsonl")
    error = refused(read_trace, file)
    for word in [*words, str(file)]:
        assert word in error


def test_files_that_are_none(tmp_path):
    assert "no such file" in refused(read_trace, tmp_path / "nothing.csv")
    assert "a folder" in refused(read_trace, tmp_path)
    assert "not a regular file" in refused(read_trace, "/dev/null")
    assert refused(read_trace, "x" * 5000)
    assert refused(read_trace, "a\0b")
    for name in ("t.csv.gz", "t.csv.zip", "t.csv.xz", "t.csv.bz2", "t.tar", "t.csv.zst"):
        assert name in refused(read_trace, trace_of(tmp_path, b"junk" * 40, name))


def test_a_trace_as_it_should_be(tmp_path):
    rows = [(2.5, 7, 3, 1), (0.5, 1, 1, 0), (2.5, 8, 4, 8)]
    names = ("arrival_s", "prompt_tokens", "output_tokens", "prefix_cached_tokens_ideal")
    text = "\n".join([" , ".join(names).replace(" ,", ","), *(",".join(map(str, row)) for row in rows)])
    jsonl = "\n".join(json.dumps(dict(zip(names, row, strict=True)) | {"nested": {"a": [1]}}) for row in rows)
    for file in (trace_of(tmp_path, text), trace_of(tmp_path, "\ufeff" + text, "bom.csv"), trace_of(tmp_path, jsonl, "t.jsonl")):
        asked = read_trace(file)
        assert asked.arrival_s.tolist() == [0.5, 2.5, 2.5]
        assert (asked.prompt.tolist(), asked.output.tolist(), asked.cached.tolist()) == ([1, 7, 8], [1, 3, 4], [0, 1, 8])
        assert any("sorted" in note for note in asked.notes)
        assert len(read_trace(file, limit=2)) == 2
        assert has_arrivals(file)
        assert [column.tolist() for column in read_lengths(file)] == [[7, 1, 8], [3, 1, 4]]
        for limit in (0, -1):
            assert "accepted" in refused(read_trace, file, limit)


def test_a_late_mistake_in_a_long_file_is_one_line(tmp_path, recwarn):
    file = trace_of(tmp_path, HEAD + "0.5,10,10\n" * 150_000 + "0.5,ten,10\n")
    assert "prompt_tokens, row 150001: 'ten'" in refused(read_trace, file)
    assert not recwarn.list


def test_a_million_rows_are_read(tmp_path):
    """In 0.2 s of one core."""
    file = trace_of(tmp_path, HEAD + "".join(f"{i},100,10\n" for i in range(1_000_000)))
    asked = read_trace(file)
    assert len(asked) == 1_000_000
    assert asked.rate == pytest.approx(1.0)


def test_requests_of_sequences():
    assert "same number" in refused(make_requests, [0.0, 1.0], [1], [1])
    assert "prompt_tokens, row 1" in refused(make_requests, [0.0], [True], [1])
    assert "rows" in refused(make_requests, [], [], [])
    assert "arrive at once" in refused(make_requests([1.0, 1.0], [1, 1], [1, 1]).at_rate, 3.0)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        assert "rate" in refused(make_requests([0.0, 1.0], [1, 1], [1, 1]).at_rate, rate)


@pytest.mark.parametrize(
    "arrivals",
    ["", "gauss", "poisson:rate=3", "gamma:cv=0", "gamma:cv=-1", "gamma:cv=nan", "gamma:cv=inf", "gamma:cv", "gamma:",
     "gamma:sd=1", "constant:1", "gamma:cv=1,cv=2", "gamma:cv=1,", "poisson:", "x" * 5000],
)  # fmt: skip
def test_arrivals_that_are_none(arrivals):
    if arrivals in ("gamma:", "poisson:"):
        assert len(arrival_times(3, 1.0, arrivals, 0)) == 3
    else:
        assert "arrivals" in refused(arrival_times, 3, 1.0, arrivals, 0)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e9, 1e-320, 1e-12])
def test_rates_that_are_none(rate):
    assert "rate" in refused(drawn_requests, 10, rate, "poisson", "10", "10", 0)


@pytest.mark.parametrize(
    "text",
    ["", "fixed", "fixed:", "fixed:0", "0", "-5", "1.5", "fixed:1e3", "9999999999", "gaussian", "gaussian:mean=1",
     "gaussian:mean=a,sd=1", "gaussian:mean=1,sd=0", "gaussian:mean=1,sd=1,x=2", "lognormal:mean=1e9,sd=1", "poisson:3",
     "empirical:", "empirical:/nothing.csv", "x" * 5000],
)  # fmt: skip
def test_lengths_that_are_none(text):
    refused(lengths, 1000, text, "10", 0)
    refused(lengths, 1000, "10", text, 0)


def test_other_numbers_that_are_refused():
    for many in (0, -1, 10**9):
        assert "num-requests" in refused(drawn_requests, many, 1.0, "poisson", "10", "10", 0)
    assert "seed" in refused(drawn_requests, 1, 1.0, "poisson", "10", "10", -1)
    for text in ("", "1", "1:", "a:b", "1:2:3", "-1:2", "99999:1"):
        assert "disaggregate" in refused(read_pools, text)
    assert read_pools(" 2:3 ") == (2, 3)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scheduler": "magic"}, "scheduler"), ({"router": "magic"}, "router"), ({"max_seqs": 0}, "max-seqs"),
        ({"max_batched_tokens": 0}, "max-batched-tokens"), ({"block": 0}, "block"), ({"block": -16}, "block"),
        ({"replicas": 0}, "replicas"), ({"replicas": 5000}, "replicas"), ({"disaggregate": (0, 1)}, "disaggregate"),
        ({"disaggregate": (4000, 4000)}, "disaggregate"), ({"disaggregate": (1, 1), "replicas": 2}, "disaggregate"),
        ({"concurrency": 0}, "concurrency"), ({"kv_fraction": 0}, "kv-fraction"), ({"kv_fraction": 1.01}, "kv-fraction"),
        ({"kv_fraction": float("nan")}, "kv-fraction"), ({"max_seqs": 1.5}, "max-seqs"), ({"block": True}, "block"),
    ],
)  # fmt: skip
def test_services_that_are_none(changes, word):
    assert word in refused(lambda: Service(**changes))


ONE = make_requests([0.0], [8], [4])


def test_weights_must_fit_where_no_cache_is():
    """On this device weights and cache are in memories of their own."""
    with pytest.raises(CapacityError, match="memory hbm"):
        serve("llama-3.1-405b", "hetero", ONE)


def test_what_cannot_be_served():
    assert "encoder" in refused(serve, "bert-base", "h100-ideal", ONE)
    alone = load_device("h100-ideal").model_copy(update={"links": {}})
    assert "no links" in refused(serve, "gpt2", alone, ONE, Service(disaggregate=(1, 1)))
    assert "host" in refused(serve, "gpt2", "h100-ideal", ONE, Service(host="magic"))
    assert "microbatches" in refused(serve, "llama-3.1-8b", "4x-h100-ideal", ONE, Service(), Job(parallel="pp=2,microbatches=2"))
    for model, service in (
        ("llama-3.1-405b", Service()), ("llama-3.1-8b", Service(kv_fraction=0.1)), ("gpt2", Service(block=10_000_000)),
    ):  # fmt: skip
        with pytest.raises(CapacityError) as caught:
            serve(model, "h100-ideal", ONE, service)
        assert "accepted" in str(caught.value)
        assert "\n" not in str(caught.value)


SMALL = Service(kv_fraction=0.01, max_seqs=8, max_batched_tokens=256)  # some 0.8 GB less 0.25 GB of weights


@pytest.mark.parametrize("scheduler", ["chunked", "mixed", "prefill-first"])
@pytest.mark.parametrize("pools", [None, (1, 1)])
def test_a_prompt_larger_than_the_cache_is_rejected_and_others_are_served(scheduler, pools):
    service = Service(**{**vars(SMALL), "scheduler": scheduler, "disaggregate": pools})
    asked = make_requests([0.0, 0.1, 0.2], [8, 10_000_000, 8], [4, 1, 1])
    served = serve("gpt2", "h100-ideal", asked, service)
    assert served.table["status"].tolist() == ["completed", "rejected", "completed"]
    assert "more KV blocks than" in served.table["reason"][1]
    assert (served.completed, served.tokens) == (2, 5)
    assert served.to_dict()["rejected"] == 1
    json.dumps(served.to_dict(), allow_nan=False)


@pytest.mark.parametrize("concurrency", [None, 1])
def test_all_requests_rejected(concurrency):
    asked = make_requests([0.0, 1.0], [10**7, 10**7], [1, 1])
    served = serve("gpt2", "h100-ideal", asked, Service(**{**vars(SMALL), "concurrency": concurrency}))
    assert (served.completed, served.makespan_s, served.tokens_per_s, served.utilisation, served.energy_j) == (0, 0, 0, 0, 0)
    text = json.dumps(served.to_dict(), allow_nan=False)
    assert json.loads(text)["ttft_s"] == {"mean": None, "p50": None, "p90": None, "p99": None}


def test_prompts_and_outputs_of_one_token_and_a_prompt_that_is_cached_whole():
    asked = make_requests([0.0, 1.0, 2.0], [1, 1, 64], [1, 3, 2], np.array([0, 1, 64]))
    served = serve("gpt2", "h100-ideal", asked)
    assert served.completed == 3
    assert served.table["tpot_s"].isna().tolist() == [True, False, False]
    assert served.steps["tokens"].tolist() == [1.0] * len(served.steps)  # the last token of a cached prompt is computed again
    assert served.steps["steps"].sum() == 1 + 3 + 2


def test_more_of_a_closed_loop_than_there_are_requests():
    served = serve("gpt2", "h100-ideal", ONE, Service(concurrency=100_000_000))
    assert served.completed == 1
