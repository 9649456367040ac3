"""A memory shared fairly: max-min rates, each transfer also limited by its port, never more in all than the memory has."""

from __future__ import annotations

import simpy


class _Flow:
    __slots__ = ("done", "left", "limit", "rate")

    def __init__(self, done: simpy.Event, left: float, limit: float) -> None:
        self.done, self.left, self.limit, self.rate = done, left, limit, 0.0


class SharedBandwidth:
    """One memory of `rate` bytes/s. `transfer` returns an event that fires when the bytes are through."""

    def __init__(self, env: simpy.Environment, rate: float) -> None:
        self.env, self.rate, self.served = env, rate, 0.0
        self._flows: list[_Flow] = []
        self._ending: list[_Flow] = []
        self._since = 0.0
        self._wake: simpy.Event | None = None

    def transfer(self, nbytes: float, limit: float) -> simpy.Event:
        """Start moving `nbytes` at up to `limit` bytes/s."""
        self._advance()
        flow = _Flow(self.env.event(), nbytes, limit)
        self._flows.append(flow)
        self._share()
        return flow.done

    def _advance(self) -> None:
        """Account for what moved since the rates last changed."""
        now = self.env.now
        elapsed = now - self._since
        if elapsed > 0:
            for flow in self._flows:
                moved = flow.rate * elapsed
                flow.left -= moved
                self.served += moved
        self._since = now

    def _share(self) -> None:
        """New max-min rates, and a wake-up when the first transfer ends."""
        flows = self._flows
        if len(flows) == 1:
            flows[0].rate = min(flows[0].limit, self.rate)
        else:
            self._water_fill()
        times = [flow.left / flow.rate for flow in flows]
        first = max(min(times), 0.0)
        self._ending = [flow for flow, time in zip(flows, times, strict=True) if time <= first * (1 + 1e-12)]
        wake = self._wake = self.env.timeout(first)
        assert wake.callbacks is not None
        wake.callbacks.append(self._on_wake)

    def _water_fill(self) -> None:
        """Those limited by their port get that, the rest share what remains equally."""
        left, waiting = self.rate, len(self._flows)
        for flow in sorted(self._flows, key=lambda flow: flow.limit):
            flow.rate = min(flow.limit, left / waiting)
            left -= flow.rate
            waiting -= 1

    def _on_wake(self, event: simpy.Event) -> None:
        if event is not self._wake:  # the rates changed since this wake-up was set
            return
        self._advance()
        for flow in self._ending:
            self.served += flow.left  # rounding only: what is left of a transfer that has ended
            self._flows.remove(flow)
            flow.done.succeed()
        if self._flows:
            self._share()
