"""Parameter sets: the fitted numbers of one kernel family on one architecture generation, by software stack and number format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ANY = "any"


@dataclass(frozen=True, eq=False)
class KernelSet:
    """Parameters in SI, what they were fitted on, and for which stacks and formats they stand."""

    stacks: tuple[str, ...]
    formats: tuple[str, ...]
    fitted: str
    parameters: Mapping[str, float] = field(repr=False)


def choose(sets: Sequence[KernelSet], stack: str, format: str) -> KernelSet | None:
    """The set for a stack and format: of that stack, of its family ("vllm" for "vllm-triton"), of any; None where there is none."""
    able = [one for one in sets if format in one.formats or ANY in one.formats]
    for name in (stack, stack.split("-", maxsplit=1)[0], ANY):
        found = next((one for one in able if name in one.stacks), None)
        if found is not None:
            return found
    return None
