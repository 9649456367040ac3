"""Requests in flight at a drive: by hand, against mean-value analysis, and what may never happen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.cost.flash import throughput
from hwsim.fit.tables.storage import cloud_vm_storage_memory, storage_fio_sata_ssd
from hwsim.kernels.drive import drive, lost

ONE = {"latency": 90e-6, "command": 2e-6, "stream": 1e9, "bandwidth": 1e9}  # 8 KB: 98 us alone, 10 us of the drive
KB = 1000.0


def by_mean_values(alone: float, demand: float, depth: int) -> float:
    """Requests/s of one queue and a delay (Reiser and Lavenberg 1980)."""
    waiting, rate = 0.0, 0.0
    for n in range(1, depth + 1):
        response = demand * (1 + waiting)
        rate = n / (alone + response)
        waiting = rate * response
    return rate


def test_one_request_waits_for_itself_only():
    assert drive(chunk=8 * KB, depth=1, chip=None, p=ONE) == pytest.approx(98e-6 + 10e-6)


def test_two_requests_by_hand():
    loss = lost(2, 98 / 10)  # a^2/2 / (1 + a + a^2/2)
    assert loss == pytest.approx(48.02 / (1 + 9.8 + 48.02))
    assert drive(chunk=8 * KB, depth=2, chip=None, p=ONE) == pytest.approx(10e-6 / (1 - loss))


@given(st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-3), st.integers(1, 200))
def test_agrees_with_mean_value_analysis(latency, command, depth):
    p = {"latency": latency, "command": command, "stream": 1e30, "bandwidth": 1e30}
    assert 1 / drive(chunk=1.0, depth=depth, chip=None, p=p) == pytest.approx(by_mean_values(latency, command, depth), rel=1e-9)


@given(st.floats(512, 1e7), st.integers(1, 300))
def test_never_faster_than_its_bandwidth_its_commands_or_its_requests(chunk, depth):
    each = drive(chunk=chunk, depth=depth, chip=None, p=ONE)
    assert each >= chunk / 1e9 + 2e-6 - 1e-18
    assert each >= (90e-6 + 2e-6 + 2 * chunk / 1e9) / depth * (1 - 1e-12)
    assert drive(chunk=chunk, depth=depth + 1, chip=None, p=ONE) <= each * (1 + 1e-12)


def test_arrays_of_chunks_and_depths_are_each_on_its_own():
    chunks, depths = np.array([4 * KB, 64 * KB, 8 * KB]), np.array([32, 1, 7])
    found = drive(chunk=chunks, depth=depths, chip=None, p=ONE)
    alone = [drive(chunk=float(c), depth=int(d), chip=None, p=ONE) for c, d in zip(chunks, depths, strict=True)]
    assert found == pytest.approx(alone, rel=1e-12)


def test_tables_of_drives_are_read_by_what_is_in_flight():
    fio = pd.DataFrame([
        {
            "media": "SATA SSD", "setup": "HBA", "direction": "read", "iodepth": 8, "numjobs": 4, "iops": 5e4,
            "block_bytes": 4096,
        }
    ])  # fmt: skip
    (group,) = storage_fio_sata_ssd(fio)
    assert (group.device, group.stack, group.format) == ("SATA SSD", "HBA", "read")
    assert (group.arguments["depth"][0], group.measured[0]) == (32, pytest.approx(20e-6))
    test = "Type: Random Read - IO Engine: Linux AIO - Buffered: No - Direct: Yes - Block Size: 64KB - Remote Disk"
    base = {"suite": "fio", "vm_sku": "D8s_v5", "p50": 3109.0}
    cloud = pd.DataFrame([base | {"test": test, "unit": "IOPS"}, base | {"test": test, "unit": "MiB_s"}])
    priced, other = cloud_vm_storage_memory(cloud)
    assert (priced.stack, priced.format, priced.arguments["chunk"][0], priced.arguments["depth"][0]) == (
        "remote",
        "read",
        65536,
        64,
    )
    assert (other.family, other.rows) == ("", 1)


def test_the_m1_max_reads_as_published():
    ssd = load_device("m1-max").links["ssd"]
    kib = np.array([8.0, 16.0, 32.0, 35.5])  # table 2 (fitted) and table 3 with appendix C of arXiv:2312.11514
    assert throughput(ssd, 1024 * kib) / 1e9 == pytest.approx([1.25, 2.25, 3.93, 4.07], rel=0.06)
    assert throughput(ssd, 2.0**30) == pytest.approx(6.1e9, rel=1e-3)
