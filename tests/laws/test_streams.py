"""Programs of instruction streams: the closed form is what events give, for any beats, credits and number of repetitions."""

from __future__ import annotations

import math

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cost.streams import Stage, Stream, duration
from hwsim.engine.streams import play

seconds = st.floats(0.0, 10.0).map(lambda x: round(x, 3))


@st.composite
def stages(draw) -> Stage:
    """Up to five streams; each follows one before it, with a divisor of its beats, or none."""
    streams: list[Stream] = []
    for index in range(draw(st.integers(1, 5))):
        after = draw(st.integers(-1, index - 1))
        beats = draw(st.integers(1, 24)) if after < 0 else _divisor(draw, int(streams[after].beats))
        ahead = draw(st.sampled_from([2.0, 3.0, 5.0, math.inf])) if after < 0 else math.inf
        lead = draw(seconds) if after < 0 else 0.0
        streams.append(Stream(f"u{index}", draw(seconds), float(beats), after, lead, ahead))
    whole = [_covering(stream, index, streams) for index, stream in enumerate(streams)]
    return Stage(whole, draw(seconds), float(draw(st.integers(1, 3))))


def _divisor(draw, beats: int) -> int:
    return draw(st.sampled_from([n for n in range(1, beats + 1) if beats % n == 0]))


def _covering(stream: Stream, index: int, streams: list[Stream]) -> Stream:
    """Room for two beats of the stream behind, if there is one: a buffer of less would never let the first of them start."""
    behind = [stream.beats / one.beats for one in streams if one.after == index]
    room = max([stream.ahead, *(2 * each for each in behind)]) if len(behind) == 1 else math.inf
    return Stream(stream.unit, stream.seconds, stream.beats, stream.after, stream.lead_s, room)


@settings(max_examples=300, deadline=None)
@given(st.lists(stages(), min_size=1, max_size=3), st.integers(1, 4))
def test_closed_form_is_what_events_give(program, scale):
    env = simpy.Environment()
    env.process(play(env, program, float(scale)))
    env.run()
    assert env.now == pytest.approx(scale * float(duration(program)), rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(stages())
def test_no_stage_beats_its_busiest_stream_nor_exceeds_their_sum(stage):
    busy = [float(stream.busy_s) for stream in stage.streams]
    assert max(busy) <= float(stage.seconds) * (1 + 1e-12)
    assert float(stage.seconds) <= sum(busy) + stage.sync_s + 1e-9
