"""Roofline points: where each op stands against the roof of the unit it ran on. Rates are those of one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.device import Device, Unit
from hwsim.report.tables import op_table
from hwsim.trace import STATIC, Trace

Point = Mapping[str, Any]


def roofline_points(trace: Trace, device: Device) -> list[dict[str, Any]]:
    """One point per op that computes: Op/B, attained and roof op/s of one device, fraction of the roof, seconds, bound."""
    copies = device.count / (1 + max((row.stage for row in trace.rows), default=0))
    lines = op_table(trace).to_dict("records")
    return [_point(line, device, copies) for line in lines if _drawn(line, device)]


def _drawn(line: Mapping[Any, Any], device: Device) -> bool:
    return bool(line["unit"] in device.units and line["op"] > 0 and line["bytes"] > 0 and line["seconds"] > 0)


def _point(line: Mapping[Any, Any], device: Device, copies: float) -> dict[str, Any]:
    unit = device.units[line["unit"]]
    precision = unit.precision_for(line["precision"]) or next(iter(unit.peak))
    intensity = {name: line["op"] / line[f"bytes.{name}"] for name in device.memories if line.get(f"bytes.{name}", 0.0) > 0}
    attained = line["op"] / line["seconds"] / copies
    slopes = [float(op_b * unit.limit(memory, device.memories)) for memory, op_b in intensity.items()]
    roof = min([reached(unit, precision), *slopes])
    return {
        "name": line["op_name"], "block": line["block"], "phase": line["phase"], "stage": line["stage"], "kind": line["kind"],
        "unit": line["unit"], "precision": precision, "op_b": line["op_b"], "attained_op_s": attained, "roof_op_s": roof,
        "fraction": attained / roof, "seconds": line["seconds"], "share": line["share"], "bound": line["bound"],
    }  # fmt: skip


def way_points(trace: Trace, device: Device) -> list[dict[str, Any]]:
    """One point for each way inside the device: all operations of a run per byte over it, and the rate at which it lets them go.

    The roof is the bandwidth of the way times the intensity (the hierarchical roofline of MoE-Lightning, arXiv:2411.11217).
    """
    total = sum(row.op for row in trace.rows)
    found = []
    for name, link in device.links.items():
        rows = [row for row in trace.rows if row.unit == name and link.reads]
        moved = sum(row.bytes.get(link.reads, 0.0) / (link.reads, link.memory).count(link.reads) for row in rows)
        if moved and trace.latency_s:
            op_b, attained = total / moved, total / trace.latency_s
            roof, busy = op_b * float(link.bandwidth * link.efficiency), sum(row.seconds for row in rows)
            found.append({
                "name": "whole run", "block": "", "phase": "", "stage": 0, "kind": rows[0].kind, "unit": name, "precision": "",
                "op_b": op_b, "attained_op_s": attained, "roof_op_s": roof, "fraction": attained / roof,
                "seconds": busy, "share": busy / trace.latency_s, "bound": "link",
            })  # fmt: skip
    return found


def reached(unit: Unit, precision: str) -> float:
    """op/s that kernels reach, the flat part of the roof: the datasheet's peak where kernel models say how near they come."""
    return float(unit.peak[precision] * (1.0 if unit.cost == "gpu" else unit.efficiency))


def left_out(trace: Trace, device: Device) -> list[str]:
    """Ops that have no place in a roofline: moves over links and ops without operations."""
    lines = op_table(trace).to_dict("records")
    return list(dict.fromkeys(line["op_name"] for line in lines if line["unit"] != STATIC and not _drawn(line, device)))


def left_out_note(trace: Trace, device: Device) -> str:
    """A sentence that names what is not drawn."""
    names = left_out(trace, device)
    return f"Not shown, since they move bytes without computing: {', '.join(names)}." if names else ""
