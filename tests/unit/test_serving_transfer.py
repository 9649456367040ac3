"""Sending a cache from the replica that prefills to the one that decodes, by hand."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.errors import InputError
from hwsim.job import Context, Job
from hwsim.serving import Service, make_requests, serve
from hwsim.serving.transfer import Transfer


def transfer(model: str, device: str) -> Transfer:
    return Transfer.of(Context(load_model(model), load_device(device), Job()))


def test_bytes_are_those_of_all_layers_over_all_devices():
    """Llama-3.1-8B: 32 layers x 2 x 8 heads x 128 x 2 B = 131,072 B a token."""
    assert transfer("llama-3.1-8b", "h100").bytes(100) == 100 * 131_072
    assert transfer("llama-3.1-8b", "4x-h100").bytes(100) == 100 * 131_072 / 4


def test_layers_with_a_window_send_no_more_than_it():
    """GPT-OSS-20B: 24 layers of 2 x 8 heads x 64, every other one with a window of 128."""
    per_layer = 2 * 8 * 64 * 2
    assert transfer("gpt-oss-20b", "h100").bytes(1000) == 12 * per_layer * (1000 + 128)


def test_seconds_and_joules_are_those_of_the_longest_link():
    one = transfer("llama-3.1-8b", "4x-h100-ideal")
    link = one.context.device.links[one.link]
    assert link.reach == max(other.reach for other in one.context.device.links.values())
    sent = one.bytes(2000)
    assert one.seconds(2000) == pytest.approx(float(link.latency) + sent / (float(link.bandwidth) * float(link.efficiency)))
    assert one.joules(2000)[one.link] == pytest.approx(4 * sent * float(link.energy))


def test_a_served_request_pays_for_its_transfer():
    asked = make_requests([0.0], [2000], [5])
    together, apart = (serve("llama-3.1-8b", "4x-h100-ideal", asked, Service(disaggregate=pools)) for pools in (None, (1, 1)))
    one = transfer("llama-3.1-8b", "4x-h100-ideal")
    waits = apart.table["e2e_s"][0] - together.table["e2e_s"][0]
    assert waits == pytest.approx(one.seconds(2000))
    assert apart.table["ttft_s"][0] == together.table["ttft_s"][0]
    more = sum(value for name, value in apart.joules.items() if name != "static")
    more -= sum(value for name, value in together.joules.items() if name != "static")
    assert more == pytest.approx(sum(one.joules(2000).values()))


def test_devices_without_links_are_refused():
    alone = load_device("p4").model_copy(update={"links": {}})
    with pytest.raises(InputError, match="no links"):
        Transfer.of(Context(load_model("gpt2"), alone, Job()))
