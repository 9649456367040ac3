"""Device: what can do the work. Units, memories, links and buffers as data from arch/*.yaml, strict and frozen.

A number in a file is written with its unit ("3350 GB/s") and gets its provenance from the nearest `source:` around it, or carries
its own: {value: 0.82, assumed: "why", range: "what was tried"} or {value: ..., fitted: "on what, with which error"}.
Inside, every number is an SI float; any of them may be replaced by a NumPy array of design points (`Device.with_values`).

Bandwidths are peaks of a datasheet; `efficiency` is the fraction that kernels reach and multiplies them. A unit draws at most
`port` bytes/s from its memory; units of one memory share it. `formats` (of weights, activations, kv), `policy`, `parallel` and
`compression` are how the machine is meant to be used, unless a job says otherwise. A link joins `reach` neighbouring devices and
carries `bandwidth` in each direction at once; one that `reads` a memory stays inside the device and brings its bytes into
another: a drive, a PCIe slot, a copy. `count` equal devices joined by their links make a system. `kernels` are the fitted kernel
models of the `generation`, `stack` is the software whose kernels run where several were measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeGuard, get_origin

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, model_validator

from hwsim.errors import InputError
from hwsim.formats import bits, candidates, multiplied_in
from hwsim.kernels.sets import ANY, KernelSet
from hwsim.op import Array, Math
from hwsim.quantity import parse


def _quantity(si_unit: str, accept: Callable[[float], bool], accepted: str) -> PlainValidator:
    """A field that reads text with a unit, or SI numbers and arrays from Python code."""

    def read(value: object) -> Array:
        try:
            number = value if _is_number(value) else parse(value, si_unit)
        except InputError as error:  # as a ValueError, pydantic says which field it was
            raise ValueError(str(error)) from error
        if not np.all(np.isfinite(number)) or not np.all(accept(number)):  # type: ignore[arg-type]
            raise ValueError(f"{value!r} is out of range; accepted: {accepted}")
        return number

    return PlainValidator(read)


def _is_number(value: object) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray | float | int) and not isinstance(value, bool)


Bytes = Annotated[Array, _quantity("B", lambda x: x > 0, "a positive size such as 80 GiB")]
Size = Annotated[Array, _quantity("B", lambda x: x >= 0, "a size such as 1.2 GB")]
Rate = Annotated[Array, _quantity("B/s", lambda x: x > 0, "a positive bandwidth such as 3350 GB/s")]
OpRate = Annotated[Array, _quantity("op/s", lambda x: x > 0, "a positive rate such as 989 TFLOP/s")]
Seconds = Annotated[Array, _quantity("s", lambda x: x >= 0, "a time such as 3 us")]
Watts = Annotated[Array, _quantity("W", lambda x: x >= 0, "a power such as 90 W")]
Limit = Annotated[Array, _quantity("W", lambda x: x > 0, "a power above 0 such as 700 W")]
JoulesPerByte = Annotated[Array, _quantity("J/B", lambda x: x >= 0, "an energy such as 3.6 pJ/bit")]
JoulesPerOp = Annotated[Array, _quantity("J/op", lambda x: x >= 0, "an energy such as 0.5 pJ/op")]
SquareMetres = Annotated[Array, _quantity("m**2", lambda x: x >= 0, "an area such as 3.02 mm^2")]
Operand = Literal["weights", "activations", "kv"]
Hertz = Annotated[Array, _quantity("Hz", lambda x: x > 0, "a clock such as 1830 MHz")]
Number = Annotated[Array, _quantity("", lambda x: x >= 0, "a number, 0 or more")]
_CLOCK: TypeAdapter[Array] = TypeAdapter(Hertz)
Joules = Annotated[Array, _quantity("J", lambda x: x >= 0, "an energy such as 2 pJ")]
Volts = Annotated[Array, _quantity("V", lambda x: x > 0, "a voltage such as 0.2 V")]
Siemens = Annotated[Array, _quantity("S", lambda x: x > 0, "a conductance such as 50 uS")]
Deviation = Annotated[Array, _quantity("S", lambda x: x >= 0, "a deviation such as 4.7 uS")]
Resolution = Annotated[Array, _quantity("", lambda x: (x >= 1) & (x <= 24), "a number of bits from 1 to 24")]
Fraction = Annotated[Array, _quantity("", lambda x: (x > 0) & (x <= 1), "a fraction, above 0 and at most 1")]
Share = Annotated[Array, _quantity("", lambda x: (x >= 0) & (x <= 1), "a part, from 0 to 1")]
Count = Annotated[Array, _quantity("", lambda x: (x >= 1) & (x <= 1e6), "a number from 1 to 1000000")]
Bits = Annotated[Array, _quantity("", lambda x: (x >= 1) & (x <= 64), "a number of bits from 1 to 64")]
Quirks = Literal["none", "as-published"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: str = ""


class Memory(_Part):
    """Where bytes live: HBM, DDR, flash, SRAM.

    `view_of` another memory is a second path into the same storage (the wide path of a PIM), with a bandwidth and an energy of
    its own: paths do not slow each other as long as they are in different `spaces` (bank bundles), which policies see to.
    `organisation` is for readers and studies: stacks, channels, banks, timings; bandwidths are given, not derived from it.
    `write_energy` is that of a written byte, where the cost model of a unit tells writes from reads.
    """

    capacity: Bytes
    bandwidth: Rate
    efficiency: Fraction = 1.0
    energy: JoulesPerByte = 0.0
    write_energy: JoulesPerByte | None = None
    organisation: Mapping[str, float] = Field(default_factory=dict)
    view_of: str = ""
    spaces: Annotated[int, Field(ge=1)] = 1

    @property
    def rate(self) -> Array:
        """Bytes/s that all its readers together can get."""
        return self.bandwidth * self.efficiency


class Published(_Part):
    """What a paper's released simulator charges instead of what the array does: `quirks: as-published`.

    Both operands of a layer have one width: `narrow` bits in GEMMs of `narrow_kinds`, `wide` in all others and in the part
    `wide_blocks` of the network's blocks (rounded down). Halving it doubles rows and columns, from `widest` to `narrowest`.
    """

    widest: Bits
    narrowest: Bits
    narrow: Bits
    wide: Bits
    wide_blocks: Share = 0.0
    narrow_kinds: tuple[str, ...] = ("qkv", "out", "ffn")

    def factor(self, bits: Array) -> Array:
        """How many times the rows, and the columns, that operands of so many bits find."""
        return np.floor(self.widest / np.maximum(bits, self.narrowest))


class SystolicArray(_Part):
    """Processing elements in rows and columns, each of which multiplies an activation by a weight and adds, once a cycle.

    `activation_bits` and `weight_bits` are the widths it does that for. A wider operand takes a pass per such part; a narrower
    one is faster only where elements divide, down to `least_bits`. `formats` are the activations it takes, and in how many bits:
    a format of more bits is quantised on its way in. Weights in groups with scales are scaled by the elements, `before` the
    product (every weight once) or `after` the dot product of each group (every partial sum). `leakage` and `dynamic` are
    watts of an element, the latter while it works; operands wait in the device's buffers `activations`, `weights`, `outputs`.
    """

    rows: Count
    columns: Count
    activation_bits: Bits
    weight_bits: Bits
    least_bits: Bits | None = None
    output_bits: Bits
    formats: Mapping[str, Bits]
    dequantise: Literal["before", "after"]
    leakage: Watts
    dynamic: Watts
    published: Published | None = None
    quirks: Quirks = "none"

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.formats:
            _known_format(name)
        if self.quirks != "none" and self.published is None:
            raise ValueError(f"quirks: {self.quirks!r}; accepted: none, or `published` beside it")
        return self

    @property
    def elements(self) -> Array:
        """Processing elements."""
        return self.rows * self.columns

    def macs(self, a_bits: Array, w_bits: Array) -> tuple[Array, Array, Array]:
        """Multiply-accumulates across the rows and across the columns in a cycle, and passes, for operands of so many bits."""
        if self.quirks != "none" and self.published:
            return self.rows * self.published.factor(a_bits), self.columns * self.published.factor(w_bits), 1.0
        least_a, least_w = (self.least_bits or native for native in (self.activation_bits, self.weight_bits))
        passes = np.ceil(a_bits / self.activation_bits) * np.ceil(w_bits / self.weight_bits)
        across = np.maximum(np.floor(self.activation_bits / np.maximum(a_bits, least_a)), 1.0)
        along = np.maximum(np.floor(self.weight_bits / np.maximum(w_bits, least_w)), 1.0)
        return self.rows * across, self.columns * along, passes

    def peaks(self, clock: Array) -> dict[str, Array]:
        """op/s for each format of activations, with the weights that are fastest."""
        if self.quirks != "none" and self.published:
            both = {format_of(width): (width, width) for width in (self.published.wide, self.published.narrow)}
            widths = {multiplied_in(name, name): operands for name, operands in both.items()}
        else:
            fastest = self.least_bits or self.weight_bits
            widths = {name: (width, np.minimum(width, fastest)) for name, width in self.formats.items()}
        return {name: self._peak(*operands, clock) for name, operands in widths.items()}

    def _peak(self, a_bits: Array, w_bits: Array, clock: Array) -> Array:
        rows, columns, passes = self.macs(a_bits, w_bits)
        peak: Array = 2.0 * clock * rows * columns / passes
        return peak


def format_of(width: Array) -> str:
    """The format behind a width in released lists of layers, where 16 bits are floating point."""
    return "fp16" if width > 8 else f"int{int(width)}"


class Crossbar(_Part):
    """Macros of resistive cells that multiply binary inputs by weights where these are: a weight is the difference of two cells.

    Cells have `conductance` with a deviation `spread` from forming; a read deviates by `read_noise` of each cell's conductance.
    A read takes `reads` pulses of `read_time` at `read_voltage`; then `adcs` converters of a macro convert its columns (pairs of
    cells) one after another, `conversion` each. What conducts beyond +-`full_scale` is clipped. Sums of cells that do not fit the
    rows of a macro are added as currents ("analogue": one conversion in all), or converted macro by macro ("digital").
    """

    rows: Count
    columns: Count
    macros: Count = 1
    conductance: Siemens
    spread: Deviation
    read_noise: Number
    read_voltage: Volts
    read_time: Seconds
    reads: Count
    adcs: Count
    adc_bits: Resolution
    full_scale: Siemens
    conversion: Seconds
    conversion_energy: Joules
    row_energy: Joules
    sums: Literal["analogue", "digital"]

    @property
    def pairs(self) -> Array:
        """Weights side by side in a row of a macro."""
        return np.floor(self.columns / 2)

    def seconds(self, columns: Array) -> Array:
        """One read of a macro and the conversion of so many of its columns."""
        return self.reads * (self.read_time + np.ceil(columns / self.adcs) * self.conversion)

    @property
    def peak(self) -> Array:
        """op/s of all macros when every row spikes."""
        return 2.0 * self.macros * self.rows * self.pairs / self.seconds(self.pairs)


class Unit(_Part):
    """A processor: in order, one op at a time. `does` says which arithmetic it can do, `peak` how fast per number format.

    A unit with an `array` has the peak of its array at its clock, one with a `crossbar` that of its crossbar, in the format
    "analog". `dynamic` is the part of its usual rates that a roofline reaches on ops whose shapes change from pass to pass.
    """

    does: tuple[Math, ...]
    peak: Mapping[str, OpRate]
    memory: str
    port: Rate | None = None
    ports: Mapping[str, Rate] = Field(default_factory=dict)
    efficiency: Fraction = 1.0
    overhead: Seconds = 0.0
    energy: Mapping[str, JoulesPerOp] = Field(default_factory=dict)
    area: Mapping[str, SquareMetres] = Field(default_factory=dict)
    homes: Mapping[Operand, str] = Field(default_factory=dict)
    organisation: Mapping[str, Number] = Field(default_factory=dict)
    cores: Annotated[int, Field(ge=1)] | None = None
    clock: Hertz | None = None
    cache: Bytes | None = None
    dynamic: Fraction = 1.0
    crossbar: Crossbar | None = None
    cost: str = "roofline"
    array: SystolicArray | None = None

    @model_validator(mode="before")
    @classmethod
    def _peak_of_its_array(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("array") is None:
            return data
        try:
            array, clock = SystolicArray.model_validate(data["array"]), _CLOCK.validate_python(data.get("clock"))
        except ValidationError:
            return {"peak": {}, **data}  # the fields say themselves what is wrong
        return {**data, "peak": array.peaks(clock)}

    @model_validator(mode="before")
    @classmethod
    def _peak_of_its_crossbar(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("crossbar") is None:
            return data
        try:
            return {**data, "peak": {"analog": Crossbar.model_validate(data["crossbar"]).peak}}
        except ValidationError:
            return {"peak": {}, **data}  # the fields say themselves what is wrong

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.array and self.clock is None:
            raise ValueError("clock: missing; every unit with an array needs it")
        if not self.does or not self.peak:
            raise ValueError("accepted: at least one entry in `does` and in `peak`")
        if "move" in self.does:
            raise ValueError("a unit does matmul or vector; what moves bytes is written under `links`")
        for name in self.peak:
            _known_format(name)
        if self.energy and set(self.energy) != set(self.peak):
            raise ValueError(f"energy is given for {', '.join(sorted(self.energy))}; accepted: the formats of peak")
        return self

    def precision_for(self, wanted: str) -> str | None:
        """The format this unit computes `wanted` in: itself, or the narrowest wider one it has; None if there is none."""
        if wanted in self.peak:
            return wanted
        return next((name for name in candidates(wanted) if name in self.peak), None)

    def limit(self, memory: str, memories: Mapping[str, Memory]) -> Array:
        """Bytes/s this unit can draw alone from `memory`."""
        part = memories[memory]
        port = self.port if memory == self.memory else self.ports[memory]
        return part.rate if port is None else np.minimum(port, part.bandwidth) * part.efficiency

    def reaches(self, memory: str) -> bool:
        """True when operands that live in `memory` can be read."""
        return memory == self.memory or memory in self.ports


def _known_format(name: str) -> None:
    try:
        bits(name)
    except InputError as error:
        raise ValueError(f"peak: {error}") from error


class Queue(_Part):
    """Requests of a drive: `depth` of them are in flight, each moves at `stream` once it has begun and keeps the drive busy for
    `command` besides its bytes."""

    depth: Annotated[int, Field(ge=1, le=65536)]
    stream: Rate
    command: Seconds = 0.0


class Link(_Part):
    """A wire between devices: NVLink, PCIe, a network port. Bandwidth is per device and direction.

    With `reads`, a way inside one device from that memory into `memory`, of any bandwidth; with a `queue`, a drive, whose
    `latency` is that of a request to its first byte.
    """

    bandwidth: Rate
    latency: Seconds
    reach: Annotated[int, Field(ge=1)] = 1
    memory: str
    reads: str = ""
    queue: Queue | None = None
    efficiency: Fraction = 1.0
    energy: JoulesPerByte = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.reach == 1) != bool(self.reads):
            raise ValueError("accepted: `reach` of at least 2 devices, or `reads`, the memory of one device that it reads")
        if self.queue and not self.reads:
            raise ValueError("a queue needs `reads`, the memory that the drive holds")
        return self


class Buffer(_Part):
    """A bounded on-chip buffer: rows take room when they start and give it back when a later row has used it.

    That of an array is double: a tile has half of it. `read`, `write` are joules per byte, `leakage` and `area` of all of it.
    """

    capacity: Bytes
    read: JoulesPerByte = 0.0
    write: JoulesPerByte = 0.0
    leakage: Watts = 0.0
    area: SquareMetres = 0.0


def _length(value: object) -> str:
    """A number of tokens as a key, so that it can be named in a path."""
    if not re.fullmatch(r"[1-9]\d{0,8}", str(value)):
        raise ValueError(f"{value!r:.40}; accepted: a number of tokens")
    return str(value)


Length = Annotated[str, PlainValidator(_length)]


class Compression(_Part):
    """How the mapping flow of a machine stores any network, unless a job says otherwise: number formats and what is left out.

    `weights` are those of all linear layers, embedding and head included; `activations` also flow between layers. By matrix the
    part of its weights that pruning keeps (of attention with keys and values of its own, and of dense feed-forward networks), and
    in `attention` the part of query-key pairs that prompts of a length compute, of any network; lengths beyond have the last one.
    """

    weights: str
    activations: str
    kv: str
    query_key: Fraction = 1.0
    value: Fraction = 1.0
    out: Fraction = 1.0
    feed_forward: Fraction = 1.0
    attention: Mapping[Length, Fraction] = Field(default_factory=dict)


class Device(_Part):
    """A device or, with `count` above one, a system of equal devices joined by their links."""

    name: str
    description: str = ""
    generation: str = ""
    aliases: tuple[str, ...] = ()
    memories: Mapping[str, Memory]
    units: Mapping[str, Unit]
    links: Mapping[str, Link] = Field(default_factory=dict)
    buffers: Mapping[str, Buffer] = Field(default_factory=dict)
    homes: Mapping[Operand, str] = Field(default_factory=dict)
    formats: Mapping[Literal["weights", "activations", "kv"], str] = Field(default_factory=dict)
    policy: str = "fastest"
    parallel: str = "auto"
    compression: Compression | None = None
    kernels: Mapping[str, tuple[KernelSet, ...]] = Field(default_factory=dict, repr=False)
    stack: str = ANY
    static_power: Watts = 0.0
    power_limit: Limit | None = None
    tdp: Limit | None = None
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    provenance: Mapping[str, str] = Field(default_factory=dict, repr=False)
    written: Mapping[str, str] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.units:
            raise ValueError("units: none; accepted: at least one")
        for path, memory in self._memory_names():
            if memory not in self.memories:
                raise ValueError(f"{path}: no memory named {memory!r}; accepted: {', '.join(sorted(self.memories))}")
        for name, part in self.memories.items():
            if part.view_of and self.memories[part.view_of].view_of:
                raise ValueError(f"memories.{name}.view_of: {part.view_of!r} is a view itself; accepted: a memory that is none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _designed_for_its_limit(cls, data: Any) -> Any:
        """The limit of a file is the thermal design power; one that is set for a run is not."""
        known = isinstance(data, Mapping) and data.get("tdp") is None
        return {**data, "tdp": data.get("power_limit")} if known else data

    def _memory_names(self) -> list[tuple[str, str]]:
        units = [(f"units.{name}.memory", unit.memory) for name, unit in self.units.items()]
        ports = [(f"units.{name}.ports", memory) for name, unit in self.units.items() for memory in unit.ports]
        links = [(f"links.{name}.memory", link.memory) for name, link in self.links.items()]
        links += [(f"links.{name}.reads", link.reads) for name, link in self.links.items() if link.reads]
        homes = [(f"homes.{operand}", memory) for operand, memory in self.homes.items()]
        own = [
            (f"units.{name}.homes.{operand}", memory)
            for name, unit in self.units.items()
            for operand, memory in unit.homes.items()
        ]
        views = [(f"memories.{name}.view_of", memory.view_of) for name, memory in self.memories.items() if memory.view_of]
        return units + ports + links + homes + own + views

    def stored_in(self, memory: str) -> str:
        """The memory whose capacity holds what is reached through `memory`."""
        return self.memories[memory].view_of or memory

    @cached_property
    def remembered(self) -> dict[Any, Any]:
        """What placement and cost models derive from this device once."""
        return {}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which remembers nothing."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("remembered", None)
        return copied

    @property
    def wires(self) -> Mapping[str, Link]:
        """The links between devices."""
        return {name: link for name, link in self.links.items() if not link.reads}

    def link_over(self, span: int) -> str:
        """The shortest link that reaches over `span` neighbouring devices."""
        able = [(link.reach, name) for name, link in self.wires.items() if link.reach >= span]
        if not able:
            longest = max((link.reach for link in self.wires.values()), default=1)
            raise InputError(f"{self.name}: {span} devices are not joined by any link; accepted: at most {longest}")
        return min(able)[1]

    def with_stack(self, stack: str | None) -> Device:
        """A copy whose kernels are those of a software stack ("vllm"); itself for None, or where it has no kernel models.

        Raises InputError for a stack that none of its kernel models was fitted on.
        """
        timed = [
            sets for family, sets in self.kernels.items() if family not in ("power", "vector")
        ]  # those are by kind of kernel
        known = sorted({name.split("-")[0] for sets in timed for one in sets for name in one.stacks})
        if stack is None or not known:
            return self
        if stack not in known:
            raise InputError(f"stack: {stack[:40]!r}; accepted for {self.name}: {', '.join(known)}")
        return self.model_copy(update={"stack": stack})

    @property
    def arrays(self) -> Mapping[str, SystolicArray]:
        """The systolic arrays among its units."""
        return {name: unit.array for name, unit in self.units.items() if unit.array is not None}

    def with_quirks(self, quirks: Quirks) -> Device:
        """A copy that is charged like a paper's released simulator ("as-published"), or as it works ("none").

        Raises InputError for a device without such quirks.
        """
        if quirks != "none" and not any(array.published for array in self.arrays.values()):
            raise InputError(f"quirks: {quirks!r}; accepted for {self.name}: none")
        if not self.arrays:
            return self
        charged = {name: array.model_copy(update={"quirks": quirks}) for name, array in self.arrays.items() if array.published}
        units = {
            name: validated(Unit, {**_fields(self.units[name]), "array": array}, self.name) for name, array in charged.items()
        }
        return self.model_copy(update={"units": {**self.units, **units}})

    def with_values(self, values: Mapping[str, object]) -> Device:
        """A copy with numbers replaced, by dotted path: {"memories.hbm.bandwidth": "4.8 TB/s"}, or SI floats and arrays.

        Raises InputError for a path that does not exist or a value out of range.
        """
        changed = self
        for path, value in values.items():
            changed = _replaced(changed, path.split("."), value, path)
        written = {path: str(value) for path, value in values.items() if isinstance(value, str)}
        given = dict.fromkeys(written, "set for this run")
        update = {"written": {**self.written, **written}, "provenance": {**self.provenance, **given}}
        return changed.model_copy(update=update) if written else changed


def _replaced(node: Any, path: list[str], value: object, whole: str) -> Any:
    """`node` with the leaf at `path` set; models are re-validated so that a value is checked like one from a file."""
    head, rest = path[0], path[1:]
    known = type(node).model_fields if isinstance(node, BaseModel) else node if isinstance(node, Mapping) else {}
    if head not in known:
        raise InputError(f"--set {whole}: no field {head!r}; accepted: {', '.join(sorted(known)) or 'no deeper path'}")
    old = getattr(node, head) if isinstance(node, BaseModel) else node[head]
    if not rest and not (old is None or isinstance(old, int | float | np.ndarray) or _is_choice(node, head)):
        raise InputError(f"--set {whole}: {head} is not a number; accepted: the path of a number, as `hwsim show` lists them")
    if isinstance(node, BaseModel):
        new = _replaced(old, rest, value, whole) if rest else value
        return validated(type(node), {**_fields(node), head: new}, f"--set {whole}")
    return {**node, head: _replaced(old, rest, value, whole) if rest else value}


def _is_choice(node: Any, name: str) -> bool:
    """Whether a field is one of a few words."""
    return isinstance(node, BaseModel) and get_origin(type(node).model_fields[name].annotation) is Literal


def _fields(node: BaseModel) -> dict[str, Any]:
    return {name: getattr(node, name) for name in type(node).model_fields}


def validated(kind: type[Any], data: Mapping[str, Any], where: str) -> Any:
    """Build `kind` from `data`, turning pydantic's report into one line that names file, field and what is accepted."""
    try:
        return kind(**data)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, kind)}") from error


def _worst(error: ValidationError) -> Any:
    """The complaint to show: an unknown field before what is missing because of it, the right side of a union first."""
    found = error.errors(include_url=False)
    found = [one for one in found if one["loc"][-1:] != ("str",)] or found
    return next((one for one in found if one["type"] == "extra_forbidden"), found[0])


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first complaint of pydantic as `field: value: what is accepted`."""
    from difflib import get_close_matches

    first = _worst(error)
    path = ".".join(str(step) for step in first["loc"] if step not in ("[key]", "Run"))
    if first["type"] == "extra_forbidden":
        parts = (kind, Memory, Unit, Crossbar, Link, Queue, Buffer, Compression, SystolicArray, Published)
        fields = sorted({name for part in parts for name in part.model_fields} - {"provenance", "written"})
        near = get_close_matches(str(first["loc"][-1]), fields, 1)
        return f"{path}: unknown field" + (f" (did you mean {near[0]!r}?)" if near else "")
    if first["type"] == "missing":
        return f"{path}: missing; every {kind.__name__.lower()} needs it"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be ", "accepted: ")
    shown = repr(first["input"])
    given = "" if shown[:40] in message or isinstance(first["input"], dict | BaseModel) else f"{shown[:60]}: "
    return f"{path}: {given}{message}" if path else message
