"""FlightLLM's core (arXiv:2401.03868): chains of DSP blocks fed by instructions: load, multiply, special function, store.

A matrix unit (MPE) of `cores` cores works in one of two modes. With p_m, p_k, p_n, mpu of its `organisation` and its clock:

    MM (prompts)   p_m mpu rows x p_k deep x p_n columns a cycle; an instruction is p_m mpu rows x `mm_columns` columns x K
    MV (decode)    1 row x p_k deep x mpu columns a cycle;         an instruction is 1 row x `mv_columns` columns x K

Rows, depth and columns are padded to these. A product is a stage of streams (cost/streams.py) that ends with a barrier (SYS):

    LD      MV: the vector through another core's channel (lead), then the tile of weights over all channels of the core
            MM: a block of rows over all channels (lead), then the weights of `mm_columns` columns through another core's channel
    MV, MM  columns x depth x part of the weights kept / rate: an N:M pattern keeps all DSP blocks busy (section 3.2)
    MISC    elements x passes / rate of the special function unit, behind the columns that they work on (section 4.1)
    ST      the result: of MV over one channel, of MM over all
    fetch   the instructions of all these from DDR, beside them

A channel has bandwidth / channels of the memory, at its efficiency in the core itself and at `cross_part` of that from another
core. Weights in 2 to 8 bits are loaded as they are stored and widened to INT8 on the way. Tiles are loaded while others are
multiplied: of MV as many as buffer `a` holds, two at least, an instruction being at most `mv_blocks` of p_k deep; of MM one in
each half of buffer `b`, deep K being cut. Where the blocks of K do not divide by that, MM has a last short tile, behind which
the next load does not hide (with K = 11,008 MM waits for a tenth of its time). Few rows run as MV row by row, weights loaded
once, while that beats padded rows of MM.

Pruned weights come with `index_bits` each and a byte per block over one channel: with 4 bits that takes longer than eight
channels take for all weights in 4 bits, so that sparsity pays only where indices are few or prompts long.

Attention of a decoded token: all cached keys and values are joined with the new ones in the global buffer (one load each), then
scores with a softmax behind each head, then the weighted sum, keys and values loaded once more. Of prompts: scores of the
blocks that a mask keeps, in blocks of p_m mpu rows, then the weighted sum over all columns. Its contexts are rounded up to the
lengths that instruction files exist for (`decode_bucket`, `prefill_bucket`; section 5.2), those of decodes by what is cached;
products take the rows there are. Experts: every block of rows of every expert, one after another.

Each rate is multiplied by `efficiency` of its unit, what several cores lose against one. Left out: refresh and row misses
behind the efficiencies of memory paths, look-up tables, the host, sampling, and the head's product with all rows of a prompt,
which the shipped programs make (1.9 % of their time) and nobody reads. Masks are taken as equal in neighbouring rows of blocks.
Element-wise work of prompts takes what 16 elements a cycle take, in all 2.4 to 2.9 times what the authors' simulator counts for
it; it hides behind products in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.cost.resources import check_part, matrix_unit
from hwsim.cost.streams import Stage, Stream, duration, moved
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.errors import InputError, PlacementError
from hwsim.formats import nbytes
from hwsim.op import Array, AttentionOp, Elementwise, Experts, Gemm, Lookup, Op, larger

MAIN, CHANNEL, CROSS = "all channels of the core", "one channel of the core", "a channel of another core"
DDR = "ddr"  # the memory of instructions
_WHOLE = (
    "p_m", "p_k", "p_n", "mpu", "mpu_per_channel", "mm_columns", "mv_columns", "mv_blocks", "decode_bucket", "prefill_bucket",
    "mask_block", "pruned_block", "macs_per_dsp", "channels_per_instruction", "ld_words", "st_words", "mm_words", "mv_words",
    "misc_words", "sys_words",
)  # fmt: skip
_OTHERS = ("index_bits", "operand_bytes", "cross_part", "sync_cycles")
_WORD = 4.0  # bytes


def csd_chain(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on the matrix unit or the special function unit of such a core. PlacementError for what it cannot run."""
    core = _Core.of(device)
    program = tuple(_program(op, core, device))
    traffic = moved(program)
    lanes = Cost(0.0, 0.0, {}, {}, {}, "", program).lanes
    busy = larger(lanes.get("mm", 0.0) + lanes.get("mv", 0.0), lanes.get("misc", 0.0))
    joules = {memory: size * device.memories[memory].energy for memory, size in traffic.items()}
    limit = {memory: core.paths[MAIN] if memory == core.memory else core.fetch for memory in traffic}
    plain = Cost(0.0, busy, traffic, limit, joules, "instructions", program)
    return replace(plain, fixed_s=larger(duration(program) - plain.alone_s, 0.0))


@dataclass(frozen=True, eq=False)
class _Core:
    """Rates of all cores together, in multiplications, elements and bytes per second, and what tiles are made of."""

    mm_rate: Array
    mv_rate: Array
    special: Array
    memory: str
    paths: Mapping[str, Array]
    fetch: Array
    rows: Array
    channels: Array
    cycle: Array
    size: Mapping[str, Array]
    mv_buffer: Array
    mm_buffer: Array

    @classmethod
    def of(cls, device: Device) -> _Core:
        """The core that a device file describes. InputError for one that says too little or contradicts itself."""
        if "csd_chain" not in device.remembered:
            device.remembered["csd_chain"] = cls._read(device)
        found: _Core = device.remembered["csd_chain"]
        return found

    @classmethod
    def _read(cls, device: Device) -> _Core:
        name, unit = matrix_unit(device)
        special = next((one for one in device.units.values() if "vector" in one.does), None)
        if special is None or unit.clock is None or unit.cores is None:
            raise InputError(f"{device.name}: no vector unit; every device with cost csd_chain needs one")
        size = checked(device, name, unit)
        per_cycle = size["p_m"] * size["mpu"] * size["p_k"] * size["p_n"]
        cycles = unit.clock * unit.cores * unit.efficiency
        memory = device.memories[unit.memory]
        one = memory.bandwidth / memory.organisation["channels"] * unit.efficiency  # a channel, as several cores get it
        channels = size["mpu"] / size["mpu_per_channel"]
        all_of_them = np.minimum(channels * unit.cores, memory.organisation["channels"])
        return cls(
            mm_rate=per_cycle * cycles, mv_rate=size["mpu"] * size["p_k"] * cycles,
            special=max(special.peak.values(), key=np.max) * special.efficiency / 2,  # an element: multiply and add
            memory=unit.memory, fetch=device.memories[DDR].rate, rows=size["p_m"] * size["mpu"], channels=channels,
            paths={
                MAIN: all_of_them * one * memory.efficiency, CHANNEL: unit.cores * one * memory.efficiency,
                CROSS: unit.cores * one * memory.efficiency * size["cross_part"],
            },
            cycle=1 / cycles, size=size, mv_buffer=device.buffers["a"].capacity, mm_buffer=device.buffers["b"].capacity,
        )  # fmt: skip

    def load(
        self, path: str, size: Array, beats: Array = 1.0, lead: Mapping[str, Array] | None = None,
        beside: Mapping[str, Array] | None = None, ahead: Array = np.inf, extra: Array = 0.0,
    ) -> Stream:  # fmt: skip
        """Bytes over `path` in so many beats, after those of `lead`; what comes `beside` in `extra` loads is spread over them."""
        first, spread = lead or {}, [(path, size), *(beside or {}).items()]
        issued = beats * self.issues(path) + sum(self.issues(one) for one in first) + extra
        total = sum((more for _, more in (*spread, *first.items())), 0.0)
        return Stream(
            "ld", self._seconds(spread) / beats, beats, lead_s=self._seconds(first.items()), ahead=ahead, issued=issued,
            traffic={self.memory: total},
        )  # fmt: skip

    def store(self, path: str, size: Array, beats: Array = 1.0, after: int = 0) -> Stream:
        """Bytes over `path` in so many beats."""
        issued = beats * self.issues(path)
        return Stream("st", size / beats / self.paths[path], beats, after=after, issued=issued, traffic={self.memory: size})

    def issues(self, path: str) -> Array:
        """Loads or stores over a path: one for each channel, unless one instruction is expanded to several."""
        return self.channels / self.size["channels_per_instruction"] if path == MAIN else 1.0

    def stage(self, streams: Sequence[Stream], times: Array = 1.0) -> Stage:
        """Streams, their instructions from DDR beside them, and the barrier of all units after them."""
        words = sum((one.issued * self.size[f"{one.unit}_words"] for one in streams), self.size["sys_words"])
        fetched = words * _WORD
        fetching = Stream("fetch", fetched / self.fetch, traffic={DDR: fetched})
        return Stage((*streams, fetching), self.size["sync_cycles"] * self.cycle, times)

    def mv_splits(self, width: Array, depth: Array, element: float) -> Array:
        """Parts of the depth of an MV: as deep as one instruction goes, and two tiles in the buffer."""
        blocks = depth / self.size["p_k"]
        return np.ceil(larger(blocks / self.size["mv_blocks"], 2 * width * depth * element / self.mv_buffer))

    def mv_ahead(self, width: Array, depth: Array, element: float, splits: Array) -> Array:
        """Tiles of an MV that the buffer holds."""
        return np.floor(self.mv_buffer / (width * depth * element / splits) + 1e-9)

    def _seconds(self, sizes: Iterable[tuple[str, Array]]) -> Array:
        return sum((size / self.paths[path] for path, size in sizes), 0.0)


def checked(device: Device, name: str, unit: Unit) -> Mapping[str, Array]:
    """The numbers of a core. InputError for one that is missing, not whole, or that contradicts the peak."""
    size, where = unit.organisation, f"{device.name}: units.{name}"
    missing = [f"units.{name}.organisation.{one}" for one in (*_WHOLE, *_OTHERS) if one not in size]
    missing += [f"buffers.{one}" for one in ("a", "b") if one not in device.buffers] + [f"memories.{DDR}"] * (
        DDR not in device.memories
    )
    if missing:
        raise InputError(f"{device.name}: {missing[0]}: missing; every device with cost csd_chain needs it")
    for one in _WHOLE:
        if np.any(np.mod(size[one], 1)) or np.any(np.less(size[one], 1)):
            raise InputError(f"{where}.organisation.{one}: {size[one]!r}; accepted: a whole number, 1 or more")
    for buffer, width in (("a", size["mv_columns"]), ("b", size["mm_columns"])):
        least = 2 * np.max(width * size["p_k"])
        if np.any(device.buffers[buffer].capacity < least):
            held = float(np.min(device.buffers[buffer].capacity))
            raise InputError(f"{device.name}: buffers.{buffer}.capacity: {held:g} B; accepted: {least:g} B, two tiles, or more")
    check_part(device)
    rate = 2 * size["p_m"] * size["mpu"] * size["p_k"] * size["p_n"] * (unit.clock or 0.0) * (unit.cores or 0)
    if not np.allclose(unit.peak.get("int8", 0.0), rate, rtol=1e-3):
        raise InputError(
            f"{where}.peak.int8: {unit.peak.get('int8')!r} op/s; accepted: 2 p_m mpu p_k p_n clock cores = {rate!r} op/s"
        )
    return size


def _program(op: Op, core: _Core, device: Device) -> Iterator[Stage]:
    if isinstance(op, Gemm):
        yield from _product(op, core)
    elif isinstance(op, AttentionOp):
        yield from _attention(op, core)
    elif isinstance(op, Experts):
        yield from _experts(op, core)
    elif isinstance(op, Elementwise):
        yield _elements(op, core)
    elif isinstance(op, Lookup):
        yield core.stage([core.load(MAIN, op.bytes["weights"]), core.store(CHANNEL, op.output_bytes, after=0)])
    else:
        raise PlacementError(f"{device.name}: {op.name} has no program; accepted: products, attention, element-wise ops")


def _product(op: Gemm, core: _Core) -> Iterator[Stage]:
    """A stage for each weight matrix; what follows the product is spread evenly over its columns."""
    for part, kept in zip(op.parts, op.kept, strict=True):
        product = _Product(op, part * op.n, kept, part)
        yield _faster(_by_vectors(product, core), _by_blocks(product, core))


def _faster(one: Stage, other: Stage) -> Stage:
    """The stage that takes less time, point by point of arrays."""
    first = np.less_equal(one.seconds, other.seconds)
    if np.ndim(first) == 0:
        return one if first else other
    streams = [_either(first, a, b) for a, b in zip(one.streams, other.streams, strict=True)]
    return Stage(streams, one.sync_s, one.times)


def _either(first: Any, a: Stream, b: Stream) -> Stream:
    fields = ("seconds", "beats", "lead_s", "ahead", "issued", "idle_s")
    numbers = {name: np.where(first, getattr(a, name), getattr(b, name)) for name in fields}
    memories = {**a.traffic, **b.traffic}
    traffic = {memory: np.where(first, a.traffic.get(memory, 0.0), b.traffic.get(memory, 0.0)) for memory in memories}
    return Stream(unit=a.unit, after=a.after, traffic=traffic, **numbers)


@dataclass(frozen=True, eq=False)
class _Product:
    """One weight matrix of a product: `columns` of it, the part of its weights that is `kept`, its part of the whole."""

    op: Gemm
    columns: Array
    kept: float
    part: float

    @property
    def passes(self) -> Array:
        """Elements of what follows, for one row."""
        return self.part * sum(after.passes for after in self.op.epilogue)

    @property
    def chain(self) -> Array:
        """How many element-wise instructions follow each product, in the mean."""
        return self.passes / self.columns

    @property
    def operands(self) -> Array:
        """Bytes of second operands of what follows, for one row."""
        return self.part * sum(larger(after.read - after.written, 0.0) for after in self.op.epilogue)

    def weights(self, columns: Array) -> Array:
        """Bytes of the weights of so many columns, as they are stored."""
        return columns * self.op.k * nbytes(self.op.weights) * self.kept

    def index(self, core: _Core, columns: Array) -> Array:
        """Bytes that say which weights of so many columns were kept, and the pattern of each block."""
        bits = core.size["index_bits"]
        each = self.kept * bits / 8 + np.greater(bits, 0) / core.size["pruned_block"] ** 2
        return columns * self.op.k * each * (self.kept < 1)


def _by_vectors(of: _Product, core: _Core) -> Stage:
    """MV: groups of columns one after another, every row of the product with the same weights."""
    op, width = of.op, core.size["mv_columns"]
    groups = np.ceil(of.columns / width)
    loaded = np.where(np.less(of.columns, width), of.columns, groups * width)  # the last group is loaded whole
    element = nbytes(op.weights)
    splits = core.mv_splits(width, op.k, element)
    load = core.load(
        MAIN, of.weights(loaded), groups * splits, lead={CROSS: op.m * op.k * nbytes(op.activations)},
        beside={CHANNEL: of.index(core, loaded) + op.m * of.operands * core.size["operand_bytes"]},
        ahead=core.mv_ahead(width, op.k, element, splits),
        extra=groups * core.issues(MAIN) * np.greater(of.operands, 0),
    )  # fmt: skip
    multiplying = op.m * width * op.k / splits * of.kept / core.mv_rate
    multiply = Stream("mv", multiplying, groups * splits, after=0, issued=op.m * groups * splits)
    special = Stream("misc", op.m * of.passes / groups / core.special, groups, after=1, issued=op.m * groups * of.chain)
    store = core.store(CHANNEL, op.m * of.columns * nbytes(op.activations), after=2)
    return core.stage([load, multiply, special, store], times=op.groups)


def _by_blocks(of: _Product, core: _Core) -> Stage:
    """MM: blocks of rows one after another, for each all columns; tiles of weights in two halves of a buffer, as INT8."""
    op, width = of.op, core.size["mm_columns"]
    blocks, groups = np.ceil(op.m / core.rows), np.ceil(of.columns / width)
    splits = np.ceil(width * op.k / (core.mm_buffer / 2))
    beats = blocks * groups * splits
    rows, operands = core.rows * op.k * nbytes(op.activations), of.operands * core.size["operand_bytes"]
    load = core.load(
        CROSS, blocks * of.weights(groups * width), beats, lead={MAIN: rows}, ahead=2.0,
        beside={MAIN: (blocks - 1) * rows + op.m * operands, CHANNEL: blocks * of.index(core, groups * width)},
        extra=blocks * groups * core.issues(MAIN) * np.greater(of.operands, 0),
    )  # fmt: skip
    busy = core.rows * width * op.k / splits * of.kept / core.mm_rate
    idle = _uncovered(op.k / core.size["p_k"], splits, busy, of.weights(width) / splits / core.paths[CROSS])
    multiply = Stream("mm", busy + idle, beats, after=0, idle_s=idle, issued=beats)
    tiles = blocks * groups
    special = Stream("misc", op.m * of.passes / tiles / core.special, tiles, after=1, issued=tiles * of.chain)
    store = core.store(MAIN, tiles * core.rows * width * nbytes(op.activations), tiles, after=2)
    return core.stage([load, multiply, special, store], times=op.groups)


def _uncovered(depth: Array, splits: Array, busy: Array, loading: Array) -> Array:
    """Seconds a tile that MM waits where `depth` blocks of K do not divide: the few left are a tile too short to load behind."""
    left = depth - np.floor(depth / splits) * splits
    short = busy * left * splits / depth
    return np.where(left > 0, larger(loading - short, 0.0) / splits, 0.0)


def _attention(op: AttentionOp, core: _Core) -> Iterator[Stage]:
    """The program of decoding tokens or that of prompts; point by point where an array has both."""
    decoding = np.equal(op.q_tokens, op.sequences)
    if np.all(decoding):
        yield from _decodes(op, core)
    elif not np.any(decoding):
        yield from _prompts(op, core)
    else:
        yield from (replace(stage, times=np.where(decoding, stage.times, 0.0)) for stage in _decodes(op, core))
        yield from (replace(stage, times=np.where(decoding, 0.0, stage.times)) for stage in _prompts(op, core))


def _experts(op: Experts, core: _Core) -> Iterator[Stage]:
    """Every block of rows of every expert, one after another, each with the mean number of rows."""
    blocks = _blocks(op, core.rows)
    tokens = op.pairs / larger(blocks, 1e-9)
    wide = op.inner * (op.matrices - 1)
    act = Elementwise(name=op.name, kind=op.kind, tokens=tokens, read=wide, written=op.inner, work=0.0, passes=wide)
    plain: dict[str, Any] = {"name": op.name, "kind": op.kind, "m": tokens, "weights": op.weights, "activations": op.activations}
    up = Gemm(n=wide, k=op.hidden, epilogue=(act,), **plain)
    for product in (up, Gemm(n=op.hidden, k=op.inner, **plain)):
        yield from (replace(stage, times=stage.times * blocks) for stage in _product(product, core))


def _blocks(op: Experts, rows: Array) -> Array:
    """Blocks of `rows` rows over all experts: expected, tokens being spread as they route, or of what was counted."""
    if op.counted or op.balanced:
        whole: Array = np.ceil(op.tokens_per_expert / rows).sum(axis=0)
        return whole
    from scipy.stats import binom  # slow to import

    odds, how_many = np.unique(op.chosen, return_counts=True)
    tokens = np.asarray(np.ceil(op.tokens))
    total: Array = 0.0
    for p, n in zip(odds.tolist(), how_many.tolist(), strict=True):
        for before in np.arange(0.0, float(np.max(tokens)), float(np.max(rows))):
            more = binom.sf(before, tokens, p)  # the odds that an expert has more rows than that
            total = total + n * more
            if np.max(more) < 1e-9:
                break
    return total


def _elements(op: Elementwise, core: _Core) -> Stage:
    """Element-wise work on its own: read, work, write, a row a beat."""
    rows, width = np.ceil(op.tokens), nbytes(op.stream)
    load = core.load(MAIN, op.tokens * op.read * width, rows)
    special = Stream("misc", op.tokens * op.passes / rows / core.special, rows, after=0, issued=rows)
    return core.stage([load, special, core.store(CHANNEL, op.output_bytes, rows, after=1)])


def _decodes(op: AttentionOp, core: _Core) -> Iterator[Stage]:
    """One new token for each sequence: join keys, join values, scores with softmax, weighted sum."""
    bucket, width = core.size["decode_bucket"], core.size["mv_columns"]
    length = np.ceil(larger(op.kv_tokens - op.q_tokens, 1.0) / op.sequences / bucket) * bucket
    every, element, kv = op.sequences * op.heads, nbytes(op.stream), nbytes(op.kv)
    shared = op.kv_heads / op.heads  # heads that share keys load them once
    for dim in (op.qk_dim, op.kv_dim - op.qk_dim):
        cached = op.sequences * op.kv_heads * length * dim * kv
        yield core.stage([core.load(MAIN, cached), core.store(CHANNEL, 0.0, after=0)])
    groups = np.ceil(length / width)
    loaded = np.where(np.less(length, width), length, groups * width)
    parts = core.mv_splits(width, op.qk_dim, kv)
    tiles = every * groups * parts
    score = core.load(
        MAIN, every * shared * loaded * op.qk_dim * kv, tiles, lead={CROSS: every * op.qk_dim * element},
        ahead=core.mv_ahead(width, op.qk_dim, kv, parts),
    )  # fmt: skip
    multiply = Stream("mv", width * op.qk_dim / parts / core.mv_rate, tiles, after=0, issued=tiles)
    softmax = Stream("misc", 2 * length / core.special, every, after=1, issued=every)
    yield core.stage([score, multiply, softmax, core.store(CHANNEL, every * length * element, after=2)])
    splits = core.mv_splits(op.v_dim, length, kv)
    values = core.load(
        MAIN, every * shared * length * op.v_dim * kv, every * splits, lead={CROSS: every * length * element},
        ahead=core.mv_ahead(op.v_dim, length, kv, splits),
    )  # fmt: skip
    columns = np.ceil(op.v_dim / width) * width
    weigh = Stream("mv", columns * length / splits / core.mv_rate, every * splits, after=0, issued=every * splits)
    yield core.stage([values, weigh, core.store(CHANNEL, every * op.v_dim * element, after=1)])


def _prompts(op: AttentionOp, core: _Core) -> Iterator[Stage]:
    """Prompts: scores of the blocks that the mask keeps with a softmax for each row, then the weighted sum over all columns."""
    bucket, width, element = core.size["prefill_bucket"], core.size["mm_columns"], nbytes(op.stream)
    kv = element if op.expanded else nbytes(op.kv)
    new, length = (np.ceil(tokens / op.sequences / bucket) * bucket for tokens in (op.q_tokens, op.kv_tokens))
    every = op.sequences * op.heads * np.ceil(new / core.rows)  # blocks of rows, of all heads
    columns = np.ceil(_columns(op, core.rows, core.size["mask_block"], new, length) / width) * width
    rows = core.rows * op.qk_dim * element
    score = core.load(
        CROSS, every * columns * op.qk_dim * kv, every * columns / width, lead={MAIN: rows},
        beside={MAIN: (every - 1) * rows}, ahead=2.0,
    )  # fmt: skip
    tiles = every * columns / width
    multiply = Stream("mm", core.rows * width * op.qk_dim / core.mm_rate, tiles, after=0, issued=tiles)
    softmax = Stream("misc", 2 * op.kept * op.pairs * op.heads / every / core.special, every, after=1, issued=every * core.rows)
    yield core.stage([score, multiply, softmax, core.store(MAIN, every * core.rows * columns * element, every, after=2)])
    beats = every * np.ceil(op.v_dim / width)
    scores = core.rows * length * element
    values = core.load(
        CROSS, beats * width * length * kv, beats, lead={MAIN: scores}, beside={MAIN: (every - 1) * scores},
        ahead=2.0,
    )  # fmt: skip
    weigh = Stream("mm", core.rows * width * length / core.mm_rate, beats, after=0, issued=beats)
    yield core.stage([values, weigh, core.store(MAIN, beats * core.rows * width * element, beats, after=1)])


def _columns(op: AttentionOp, rows: Array, mask_block: Array, new: Array, length: Array) -> Array:
    """Columns of scores that a block of rows computes, in the mean: its own square and, before it, those that the mask keeps."""
    before = length - (new + rows) / 2
    blocks = larger(length / mask_block, 2.0)
    kept = np.clip((op.kept * (blocks + 1) - 2) / (blocks - 1), 0.0, 1.0)  # off the diagonal, whose blocks are never masked
    causal = np.less(op.pairs, 0.999 * op.q_tokens * op.kv_tokens / op.sequences) | np.equal(op.q_tokens, op.sequences)
    return np.where(causal, np.minimum(rows + kept * larger(before, 0.0), length), length)
