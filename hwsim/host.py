"""What software adds on its host: launching kernels, scheduling, preparing inputs, sampling. Numbers in arch/hosts/.

    step = max(seconds of the pass, [where there is no graph] `launch` x kernels) + `step` + `sequence` x sequences           [s]

A pass over decoding sequences alone runs as a graph, unless the software has none (`graphs` false: eager); one with prompts is
launched kernel by kernel, and a host that cannot keep up decides. Kernels are counted by `Op.launches`; data-parallel ranks have
hosts of their own.

A request reaches the engine `request` seconds after it was sent: HTTP and tokenisation, which run beside the steps. So a client
of a closed loop, whose next request follows the end of another, always misses the step that begins then.

These numbers belong to a software stack, not to a device. Serving takes those of the stack where a device's kernels were
measured; an "-ideal" device or an accelerator has no host unless one is named, and neither has a single run. Left out: host
threads that run behind the device, which hide part of this, and that requests wait for each other before the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from hwsim.catalogue import read_values, root
from hwsim.device import Seconds, Size, validated
from hwsim.errors import InputError
from hwsim.kernels.sets import ANY
from hwsim.op import Array, Op, larger


class Host(BaseModel):
    """Seconds a step, a sequence, an eager launch and a request, and bytes of each device that the software keeps for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Seconds = 0.0
    sequence: Seconds = 0.0
    launch: Seconds = 0.0
    request: Seconds = 0.0
    graphs: bool = True
    reserved: Size = 0.0

    def seconds(self, busy: Array, kernels: int, sequences: Array, prompts: bool) -> Array:
        """Seconds of a pass that takes the device `busy` seconds, with its host; `prompts`: some sequences add several tokens."""
        launched = float(self.launch) * kernels if prompts or not self.graphs else 0.0
        return larger(busy, launched) + (float(self.step) + float(self.sequence) * sequences)


def launches(ops: Iterable[Op]) -> int:
    """Kernels that are launched for one pass on one device."""
    return sum(op.launches * op.repeat for op in ops if not op.rank)


def hosts() -> list[str]:
    """Names of arch/hosts/."""
    return sorted(path.stem for path in (root("arch") / "hosts").glob("*.yaml"))


def load_host(name: str) -> Host:
    """A host by name, or "none". InputError lists what there is."""
    if name == "none":
        return Host()
    if name not in hosts():
        raise InputError(f"host: {name[:40]!r}; accepted: none, {', '.join(hosts())}")
    path = root("arch") / "hosts" / f"{name}.yaml"
    found: Host = validated(Host, read_values(path), str(path))
    return found


def host_of_stack(stack: str) -> Host:
    """The host of a software stack ("vllm-eager" is vllm's); that of any stack where its own is not known."""
    name = re.split("-", stack)[0]
    return load_host(name if name in hosts() else ANY)
