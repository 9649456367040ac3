"""Device: what can do the work. Units, memories, links and buffers as data from arch/*.yaml, strict and frozen.

A number in a file is written with its unit ("3350 GB/s") and gets its provenance from the nearest `source:` around it, or carries
its own: {value: 0.82, assumed: "why", range: "what was tried"} or {value: ..., fitted: "on what, with which error"}.
Inside, every number is an SI float; any of them may be replaced by a NumPy array of design points (`Device.with_values`).

Bandwidths are peaks of a datasheet; `efficiency` is the fraction that kernels reach and multiplies them. A unit draws at most
`port` bytes/s from its memory; units of one memory share it. `policy`, `parallel` and `compression` are how the machine is meant
to be used, unless a job says otherwise. A link joins `reach` neighbouring devices and carries `bandwidth` in each direction at
once. `count` equal devices joined by their links make a system. `kernels` are the fitted kernel models of the `generation`,
`stack` is the software whose kernels run where several were measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeGuard

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from hwsim.errors import InputError
from hwsim.formats import bits, candidates
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
Joules = Annotated[Array, _quantity("J", lambda x: x >= 0, "an energy such as 2 pJ")]
Volts = Annotated[Array, _quantity("V", lambda x: x > 0, "a voltage such as 0.2 V")]
Siemens = Annotated[Array, _quantity("S", lambda x: x > 0, "a conductance such as 50 uS")]
Deviation = Annotated[Array, _quantity("S", lambda x: x >= 0, "a deviation such as 4.7 uS")]
Count = Annotated[Array, _quantity("", lambda x: (x >= 1) & (x <= 1e6), "a number from 1 to 1000000")]
Bits = Annotated[Array, _quantity("", lambda x: (x >= 1) & (x <= 24), "a number of bits from 1 to 24")]
Fraction = Annotated[Array, _quantity("", lambda x: (x > 0) & (x <= 1), "a fraction, above 0 and at most 1")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: str = ""


class Memory(_Part):
    """Where bytes live: HBM, DDR, flash, SRAM.

    `view_of` another memory is a second path into the same storage (the wide path of a PIM), with a bandwidth and an energy of
    its own: paths do not slow each other as long as they are in different `spaces` (bank bundles), which policies see to.
    `organisation` is for readers and studies: stacks, channels, banks, timings; bandwidths are given, not derived from it.
    """

    capacity: Bytes
    bandwidth: Rate
    efficiency: Fraction = 1.0
    energy: JoulesPerByte = 0.0
    organisation: Mapping[str, float] = Field(default_factory=dict)
    view_of: str = ""
    spaces: Annotated[int, Field(ge=1)] = 1

    @property
    def rate(self) -> Array:
        """Bytes/s that all its readers together can get."""
        return self.bandwidth * self.efficiency


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
    adc_bits: Bits
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

    A unit with a `crossbar` has the peak of its crossbar, in the format "analog".
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
    crossbar: Crossbar | None = None
    cost: str = "roofline"

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


class Link(_Part):
    """A wire between devices: NVLink, PCIe, a network port. Bandwidth is per device and direction."""

    bandwidth: Rate
    latency: Seconds
    reach: Annotated[int, Field(ge=2)]
    memory: str
    efficiency: Fraction = 1.0
    energy: JoulesPerByte = 0.0


class Buffer(_Part):
    """A bounded on-chip buffer: rows take room when they start and give it back when a later row has used it."""

    capacity: Bytes


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

    def link_over(self, span: int) -> str:
        """The shortest link that reaches over `span` neighbouring devices."""
        able = [(link.reach, name) for name, link in self.links.items() if link.reach >= span]
        if not able:
            longest = max((link.reach for link in self.links.values()), default=1)
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
    if not rest and not (old is None or isinstance(old, int | float | np.ndarray)):
        raise InputError(f"--set {whole}: {head} is not a number; accepted: the path of a number, as `hwsim show` lists them")
    if isinstance(node, BaseModel):
        new = _replaced(old, rest, value, whole) if rest else value
        return validated(type(node), {**_fields(node), head: new}, f"--set {whole}")
    return {**node, head: _replaced(old, rest, value, whole) if rest else value}


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
        parts = (kind, Memory, Unit, Crossbar, Link, Buffer, Compression)
        fields = sorted({name for part in parts for name in part.model_fields} - {"provenance", "written"})
        near = get_close_matches(str(first["loc"][-1]), fields, 1)
        return f"{path}: unknown field" + (f" (did you mean {near[0]!r}?)" if near else "")
    if first["type"] == "missing":
        return f"{path}: missing; every {kind.__name__.lower()} needs it"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be ", "accepted: ")
    shown = repr(first["input"])
    given = "" if shown[:40] in message or isinstance(first["input"], dict | BaseModel) else f"{shown[:60]}: "
    return f"{path}: {given}{message}" if path else message
