"""Sending a prompt's cache from where it was computed to where decoding goes on.

    bytes   = sum over layers of min(tokens, window) x elements per token x bytes per element, over devices       [per device]
    seconds = latency + bytes / bandwidth of the longest link (`hwsim.cost.link`), every device sending its own part at once

as a whole, after the prompt (Splitwise, arXiv:2311.18677, section IV-C, also sends layer by layer, which hides most of it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.cost import price
from hwsim.cost.terms import Cost
from hwsim.errors import InputError
from hwsim.formats import nbytes
from hwsim.job import Context
from hwsim.op import Move


@dataclass(frozen=True, eq=False)
class Transfer:
    """The link that joins replicas, and what the caches of a network take to cross it."""

    context: Context
    link: str

    @classmethod
    def of(cls, context: Context) -> Transfer:
        """Over the longest link. InputError for a device without."""
        links = context.device.wires
        if not links:
            raise InputError(f"disaggregate: {context.device.name} has no links; accepted: a device with links")
        return cls(context, max(links, key=lambda name: links[name].reach))

    def seconds(self, tokens: int) -> float:
        """Seconds for the cache of a prompt."""
        return float(self._cost(tokens).alone_s)

    def joules(self, tokens: int) -> dict[str, float]:
        """Joules per component, over all devices of the sender."""
        return {name: float(value) * self.context.device.count for name, value in self._cost(tokens).joules.items()}

    def bytes(self, tokens: int) -> float:
        """Bytes that each device sends."""
        layers = ((layer.attention, count) for layer, count in self.context.model.layers)
        elements = sum(count * one.kv_width * min(tokens, one.window or tokens) for one, count in layers)
        return elements * nbytes(self.context.precision.kv) / self.context.device.count

    def _cost(self, tokens: int) -> Cost:
        device, size = self.context.device, self.bytes(tokens)
        link: Mapping[str, str] = {"activations": device.links[self.link].memory}
        span = device.links[self.link].reach
        move = Move(name="cache", kind="cache", message=size, sent=size, hops=1.0, ranks=2, span=span)
        return price(move, self.link, device, link)
