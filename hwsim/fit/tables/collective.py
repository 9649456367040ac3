"""Collectives between GPUs. A set stands for library, launch and fabric; its formats are names of collectives.

A library's version is in the name where it changed the kernel. Latency does not depend on the number format of the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from hwsim.fit.group import Group, floats, shapes, split

_LIBRARIES = {
    ("nccl", "2.18.3"): "nccl-2.18", ("torch.distributed NCCL", ""): "torch", ("sglang", "0.5.9"): "sglang-0.5.10",
    ("sglang", "0.5.10"): "sglang-0.5.10",
}  # fmt: skip
_WITHOUT_PCIE_KERNEL = {("vllm", "0.19.0"): "vllm-0.19", ("trtllm", "1.3.0rc10"): "trtllm-1.3.0rc10"}
_FABRICS = {"PCIe": "-pcie", "PCIe + network": "-pcie", "pairwise NVLink + PCIe": "-pairwise"}


def collectives(table: pd.DataFrame) -> Iterator[Group]:
    """All-reduce, gather, scatter, all-to-all and send, by library; `devices` are those of all nodes.

    A shape's word begins with the devices: sorted by size first, every fourth shape could be all those of one count of devices.
    """
    stack = [_stack(row) for row in table.fillna({"lib_version": ""}).to_dict("records")]
    for (gpu, name, what), rows in split(table.assign(stack=stack), "gpu", "stack", "collective"):
        arguments = {"name": what, "bytes": _bytes(rows), "devices": floats(rows["num_gpus"])}
        yield Group(
            "collectives", gpu, "collective", name, what, floats(rows["latency_s"]), arguments, what, "fp32",
            label=shapes(rows, "num_gpus", "message_bytes"),
        )  # fmt: skip


def _stack(row: dict[Any, Any]) -> str:
    version = (str(row["lib"]), str(row["lib_version"]))
    library = _LIBRARIES.get(version, version[0])
    if row["fabric"] == "PCIe":
        library = _WITHOUT_PCIE_KERNEL.get(version, library)
    fabric = _FABRICS.get(row["fabric"], "")
    if row["num_nodes"] > 1:
        fabric = fabric.replace("-pcie", "") + "-network"
    return library + ("-eager" if "eager" in row["kernel_source"] else "") + fabric


def _bytes(rows: pd.DataFrame) -> Any:
    """The message. A ring crosses the network adapter of a node once, an all-to-all with every GPU: so many times the bytes."""
    shared = (rows["num_nodes"] > 1) & (rows["collective"] == "alltoall")
    return floats(rows["message_bytes"]) * np.where(shared, floats(rows["num_gpus"] / rows["num_nodes"]), 1.0)
