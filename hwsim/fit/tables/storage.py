"""Tables of drives: seconds for each request at a number of requests in flight. A set stands for a setup and a direction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from hwsim.fit.group import Group, counted, floats, split

_AIO = r"(Random|Sequential) (Read|Write) - IO Engine: Linux AIO .*Block Size: (\d+)KB - (Remote|Local) Disk"
_IN_FLIGHT = 64  # of the rows through Linux AIO, by Little's law: requests/s x latency


def storage_fio_sata_ssd(table: pd.DataFrame) -> Iterator[Group]:
    """SATA drives behind several controllers: 4 KiB at random, queue depth x jobs requests in flight, held out by that."""
    for (media, setup, direction), rows in split(table, "media", "setup", "direction"):
        depth = floats(rows["iodepth"]) * floats(rows["numjobs"])
        yield Group(
            "storage_fio_sata_ssd", media, "drive", setup, direction, 1.0 / floats(rows["iops"]),
            {"chunk": floats(rows["block_bytes"]), "depth": depth}, direction, "fp32", label=depth.astype(str).astype(object),
        )  # fmt: skip


def cloud_vm_storage_memory(table: pd.DataFrame) -> Iterator[Group]:
    """Medians of many runs on virtual machines: requests in flight on a remote disk; rows through a page cache and of memory
    latency and bandwidth are counted only."""
    what = table["test"].str.extract(_AIO)
    seen = (table["unit"] == "IOPS") & what[0].notna()
    parts = table.assign(direction=what[1].str.lower(), where=what[3].str.lower(), kib=what[2], seen=seen)
    for (vm, where, direction), rows in split(parts[seen], "vm_sku", "where", "direction"):
        yield Group(
            "cloud_vm_storage_memory", vm, "drive", where, direction, 1.0 / floats(rows["p50"]),
            {"chunk": 1024.0 * floats(rows["kib"]), "depth": np.full(len(rows), float(_IN_FLIGHT))}, direction, "fp32",
            label=rows["kib"].astype(str).to_numpy(dtype=object),
        )  # fmt: skip
    for (vm, suite, unit), rows in split(parts[~seen], "vm_sku", "suite", "unit"):
        yield counted("cloud_vm_storage_memory", vm, "drive", suite, unit, floats(rows["p50"]), subset="no requests in flight")
