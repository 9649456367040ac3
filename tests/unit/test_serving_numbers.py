"""Numbers of serving by hand: room for the cache, percentiles, objectives, capacity, distributions, hosts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hwsim.catalogue import load_device
from hwsim.device import Device, Link, Memory, Unit
from hwsim.errors import CapacityError, InputError
from hwsim.host import Host, host_of_stack, hosts, load_host
from hwsim.job import Context, Job
from hwsim.lowering.batch import Sequences
from hwsim.lowering.model import Attention, FeedForward, Layer, Model
from hwsim.lowering.transformer import lower
from hwsim.serving import Service, drawn_requests, make_requests, serve
from hwsim.serving.cache import Room, room
from hwsim.serving.capacity import capacity
from hwsim.serving.drawn import arrival_times, lengths
from hwsim.serving.objective import Objective, read_objective
from hwsim.serving.served import _percentile
from hwsim.serving.service import Engine

FULL, WINDOW = (Layer(Attention(4, 2, 64, window=window), FeedForward(512)) for window in (None, 100))
TOKEN = 2 * 2 * 64 * 2  # bytes of a layer: keys and values of 2 heads of 64, in 16 bits


def engine(layers, capacity: float, parallel: str | None = None, count: int = 1) -> tuple[Context, float]:
    """A network on a device with so many bytes, and the bytes of its weights and activations on one device."""
    device = Device(
        name="d", count=count,
        memories={"m": Memory(capacity=capacity, bandwidth=1e12)},
        units={"u": Unit(does=("matmul", "vector"), peak={"bf16": 1e14}, memory="m")},
        links={"l": Link(bandwidth=1e11, latency=1e-6, reach=8, memory="m")},
    )  # fmt: skip
    model = Model("m", 256, 1000, layers)
    context = Context(model, device, Job(parallel=parallel))
    ops = lower(model, (Sequences(1.0, 56.0, 0.0), Sequences(8.0, 1.0, 0.0)))
    weights = sum(float(op.resident.get("weights", 0.0)) * op.repeat for op in ops)
    assert weights == pytest.approx(2 * model.parameters, rel=1e-3)  # norms are left out of footprints
    return context, weights + max(float(op.workspace) for op in ops)


def test_room_is_what_weights_and_activations_and_software_leave():
    context, taken = engine(((FULL, 3),), 20e6)
    for fraction, reserved in ((0.9, 0.0), (0.5, 1e6)):
        found = room(context, 16, max_seqs=8, largest_step=64, fraction=fraction, reserved=reserved)
        assert found == Room(int((20e6 * fraction - reserved - taken) // (16 * 3 * TOKEN)), 16)
    assert found.tokens == 16 * found.blocks
    with pytest.raises(CapacityError, match="kv-fraction"):
        room(context, 16, 8, 64, 0.9, 18e6 - taken - 16 * 3 * TOKEN + 1)
    assert room(context, 16, 8, 64, 0.9, 18e6 - taken - 16 * 3 * TOKEN - 1).blocks == 1


def test_layers_with_a_window_keep_a_window_of_every_sequence():
    context, taken = engine(((FULL, 2), (WINDOW, 1)), 20e6)
    found = room(context, 16, 8, 64, 0.9, 0.0)
    assert found == Room(int((18e6 - taken - 8 * 100 * TOKEN) // (16 * 2 * TOKEN)), 16)


def test_a_network_of_windows_alone_needs_blocks_for_a_window():
    context, taken = engine(((WINDOW, 3),), 20e6)
    found = room(context, 16, 8, 64, 0.9, 0.0)
    assert found == Room(int((18e6 - taken) // (16 * 3 * TOKEN)), 16, 100)
    assert [found.needed(tokens) for tokens in (0, 1, 16, 17, 100, 101, 10**6)] == [0, 1, 1, 2, 7, 7, 7]


def test_ranks_of_a_tensor_parallel_group_hold_their_part_of_every_block():
    """Reserving all but a known number of bytes shows how many a block takes: half as many on each of two."""
    blocks = []
    for parallel, count in ((None, 1), ("tp=2", 2)):
        context, _ = engine(((FULL, 3),), 20e6, parallel, count)
        more, less = (room(context, 16, 8, 64, 0.9, reserved).blocks for reserved in (0.0, 100 * 16 * 3 * TOKEN))
        blocks.append(more - less)
    assert blocks == [100, 200]


def test_percentiles_are_those_of_repeated_values():
    rng = np.random.default_rng(1)
    for many in (1, 2, 7, 100):
        values, weights = rng.choice(rng.exponential(size=50), many), rng.integers(1, 9, many)
        for percent in (0, 1, 50, 90, 99, 99.9, 100):
            expected = np.percentile(np.repeat(values, weights), percent)
            assert _percentile(values, weights.astype(float), percent) == pytest.approx(expected, rel=1e-12)


def test_objectives():
    objective = read_objective("ttft=2s, tpot=50ms")
    assert objective.bounds == {"ttft": 2.0, "tpot": 0.05}
    assert str(objective) == "ttft=2s,tpot=50ms"
    table = pd.DataFrame({
        "status": ["completed", "completed", "completed", "completed", "rejected"],
        "ttft_s": [2.0, 2.001, 1.0, 1.0, np.nan], "tpot_s": [0.05, 0.01, np.nan, 0.06, np.nan],
    })  # fmt: skip
    assert objective.met(table).tolist() == [True, False, True, False, False]
    for text in (
        "",
        "ttft",
        "ttft=",
        "ttft=2",
        "speed=2s",
        "ttft=-1s",
        "ttft=0s",
        "ttft=1s,ttft=2s",
        "ttft=1s,",
        "ttft=1 GB",
        "ttft=inf s",
    ):
        with pytest.raises(InputError):
            read_objective(text)


def test_goodput_counts_requests_that_met_the_objective():
    served = serve("gpt2", "h100-ideal", make_requests([0.0, 1.0, 2.0], [10, 1000, 10], [5, 5, 1]))
    bound = served.table["ttft_s"].max() * 0.99
    assert served.met(Objective({"ttft": bound})) == 2
    assert served.goodput(Objective({"ttft": bound})) == pytest.approx(2 / served.makespan_s)
    assert served.to_dict(Objective({"ttft": bound}))["slo_met"] == 2


@pytest.mark.parametrize("threshold", [0.003, 0.9, 1.0, 7.3, 5000.0])
def test_capacity_finds_the_threshold(threshold):
    tried = []

    def run(rate):
        tried.append(rate)
        return SimpleNamespace(requests=range(101), met=lambda objective: 100 if rate <= threshold else 99)

    found = capacity(1.0, run, Objective({"ttft": 1.0}), 0.99)
    assert found.rate <= threshold <= found.rate * 1.0101
    assert all(rate == float(f"{rate:g}") for rate in tried)  # as they are printed
    assert len(tried) == len(set(tried)) <= 40
    assert found.best is not None


def test_capacity_of_a_service_that_never_keeps_its_objective():
    never = SimpleNamespace(requests=range(2), met=lambda objective: 0)
    found = capacity(1.0, lambda rate: never, Objective({"ttft": 1.0}))
    assert (found.rate, found.best) == (0.0, None)
    with pytest.raises(InputError, match="slo-part"):
        capacity(1.0, lambda rate: never, Objective({"ttft": 1.0}), 0.0)


@pytest.mark.parametrize(
    ("arrivals", "cv"), [("poisson", 1.0), ("gamma:cv=2", 2.0), ("gamma:cv=0.5", 0.5), ("gamma", 2.0), ("constant", 0.0)]
)
def test_gaps_have_the_mean_and_variation_that_were_asked_for(arrivals, cv):
    gaps = np.diff(arrival_times(100_000, 4.0, arrivals, 1), prepend=0.0)
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-6)


@pytest.mark.parametrize("text", ["lognormal:mean=500,sd=300", "gaussian:mean=500,sd=100"])
def test_lengths_have_the_moments_that_were_asked_for(text):
    prompt, output = lengths(100_000, text, "fixed:7", 1)
    assert prompt.mean() == pytest.approx(500, rel=0.02)
    assert prompt.std() == pytest.approx(float(text.rpartition("=")[2]), rel=0.03)
    assert prompt.min() >= 1
    assert set(output.tolist()) == {7}
    assert lengths(1000, "gaussian:mean=1,sd=50", "3", 1)[0].min() == 1


def test_one_stream_does_not_move_another():
    base = drawn_requests(50, 2.0, "poisson", "gaussian:mean=50,sd=9", "lognormal:mean=50,sd=9", 3)
    other = drawn_requests(50, 2.0, "gamma:cv=2", "gaussian:mean=50,sd=9", "fixed:9", 3)
    assert np.array_equal(base.prompt, other.prompt)
    assert not np.array_equal(base.arrival_s, other.arrival_s)
    other = drawn_requests(50, 4.0, "poisson", "fixed:9", "lognormal:mean=50,sd=9", 3)
    assert np.array_equal(base.output, other.output)
    assert base.arrival_s == pytest.approx(other.arrival_s * 2)
    assert not np.array_equal(base.prompt, drawn_requests(50, 2.0, "poisson", "gaussian:mean=50,sd=9", "9", 4).prompt)
    assert drawn_requests(5, None, "poisson", "1", "1", 0).arrival_s.tolist() == [0.0] * 5


def test_lengths_of_one_file_are_drawn_as_pairs(tmp_path):
    file = tmp_path / "lengths.csv"
    file.write_text("prompt_tokens,output_tokens\n" + "".join(f"{n},{n * 10}\n" for n in range(1, 40)))
    prompt, output = lengths(500, f"empirical:{file}", f"empirical:{file}", 1)
    assert np.array_equal(output, prompt * 10)
    assert set(prompt.tolist()) == set(range(1, 40))
    alone, other = lengths(500, f"empirical:{file}", "fixed:5", 1)
    assert set(alone.tolist()) == set(range(1, 40))
    assert set(other.tolist()) == {5}


def test_hosts_add_seconds_to_steps():
    host = Host(step=1e-3, sequence=1e-5, launch=1e-4)
    assert host.seconds(5e-3, 100, 30, prompts=False) == pytest.approx(6.3e-3)  # a graph: launches do not matter
    assert host.seconds(5e-3, 100, 30, prompts=True) == pytest.approx(11.3e-3)
    assert host.seconds(5e-3, 20, 30, prompts=True) == pytest.approx(6.3e-3)  # launched faster than they run
    assert Host(launch=1e-4, graphs=False).seconds(5e-3, 100, 30, prompts=False) == pytest.approx(10e-3)
    assert load_host("none") == Host()
    assert host_of_stack("vllm-eager") == load_host("vllm")
    assert host_of_stack("magic") == load_host("any")
    for name in hosts():
        assert load_host(name).seconds(0.0, 1000, 1, prompts=True) > 0
    asked = make_requests([0.0], [10], [11])
    plain, slow = (
        serve("gpt2", "h100-ideal", asked, Service(host=host)).table["e2e_s"][0] for host in (None, Host(step=1.0, sequence=0.5))
    )
    assert slow - plain == pytest.approx(11 * 1.5)
    first, second = (
        serve("gpt2", "h100-ideal", asked, Service(host=host, disaggregate=(1, 1))).table for host in (None, Host(request=0.25))
    )
    assert second["ttft_s"][0] - first["ttft_s"][0] == pytest.approx(0.25)
    assert second["tpot_s"][0] == pytest.approx(first["tpot_s"][0])
    assert load_device("h100-ideal").kernels == {}


def test_the_host_keeps_memory_from_the_cache():
    asked = make_requests([0.0], [10], [11])
    plain, less = (
        serve("gpt2", "h100-ideal", asked, Service(host=Host(reserved=size))).room.blocks for size in (0.0, 16 * 36_864 * 100.0)
    )
    assert plain - less == 100


def test_a_sequence_lives_on_one_data_parallel_rank():
    """Four ranks have room for four times as many tokens, and none of them for a sequence of more than a quarter."""
    one, four = (Engine.of("llama-3.1-8b", device, Service(), Job(parallel=plan)).room for device, plan in
                 (("h100-ideal", None), ("4x-h100-ideal", "dp=4")))  # fmt: skip
    assert four.blocks == pytest.approx(4 * one.blocks, rel=0.02)
    assert four.longest == four.blocks // 4
    long = make_requests([0.0, 0.0], [one.tokens * 2, 100], [4, 4])
    served = serve("llama-3.1-8b", "4x-h100-ideal", long, Service(), Job(parallel="dp=4"))
    assert served.table["status"].tolist() == ["rejected", "completed"]


def test_notes_tell_of_long_contexts_and_of_pipelines():
    served = serve("gpt2", "2x-h100-ideal", make_requests([0.0, 1.0], [2000, 10], [4, 4]), Service(), Job(parallel="pp=2"))
    assert any("1 of the requests exceed the 1024 tokens" in note for note in served.notes)
    assert any("pipeline stages do one step after another" in note for note in served.notes)


def test_limits_are_those_of_each_data_parallel_rank():
    """Four ranks serve what four replicas do, where all have the same number of requests and lengths."""
    asked = make_requests([0.0] * 64, [100] * 64, [20] * 64)
    ranks = serve("gpt2", "4x-h100-ideal", asked, Service(max_seqs=8), Job(parallel="dp=4"))
    replicas = serve("gpt2", "h100-ideal", asked, Service(max_seqs=8, replicas=4))
    assert ranks.makespan_s == pytest.approx(replicas.makespan_s, rel=1e-9)
    assert ranks.steps["sequences"].max() == 4 * replicas.steps["sequences"].max() == 32


def test_a_prompt_takes_no_more_of_a_step_than_its_rank_may():
    """A prompt of 64 tokens in chunks of 16: four steps, whether other ranks are there or not."""
    asked = make_requests([0.0], [64], [1])
    for device, plan in (("h100-ideal", None), ("4x-h100-ideal", "dp=4")):
        served = serve("gpt2", device, asked, Service(max_batched_tokens=16), Job(parallel=plan))
        assert served.steps["tokens"].tolist() == [16] * 4


def test_data_parallel_ranks_have_hosts_of_their_own():
    asked = make_requests([0.0] * 8, [10] * 8, [11] * 8)
    plain, slow = (
        serve("gpt2", "4x-h100-ideal", asked, Service(host=host), Job(parallel="dp=4")).makespan_s
        for host in (Host(), Host(step=1.0, sequence=0.5))
    )
    assert slow - plain == pytest.approx(11 * (1.0 + 0.5 * 2))  # two sequences a rank
