"""What the serving software adds on its host: scheduling, preparing inputs, sampling, detokenising. Numbers in arch/hosts/.

    step = max(seconds of the pass, [with prompts] `launch` x kernels) + `step` + `sequence` x sequences in the batch        [s]

Steps of decodes alone run as a graph; steps with prompts are launched kernel by kernel, and a host that cannot keep up decides.

They belong to a software stack, not to a device. A device whose kernels were not measured (an "-ideal" one, an accelerator) has
no host unless one is named: its steps are what the model says. Left out: host threads that run behind the device, which hide part
of this, and HTTP, tokenisation and detokenisation of a request, which come before and after what is simulated.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from hwsim.catalogue import read_values, root
from hwsim.device import Seconds, Size, validated
from hwsim.errors import InputError
from hwsim.kernels.sets import ANY


class Host(BaseModel):
    """Seconds a step, a sequence and an eager launch, and bytes of each device that the software keeps for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Seconds = 0.0
    sequence: Seconds = 0.0
    launch: Seconds = 0.0
    reserved: Size = 0.0

    def seconds(self, sequences: int) -> float:
        """Seconds that the host adds to a step of so many sequences."""
        return float(self.step + self.sequence * sequences)


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
