"""Published claims: every study that ships is true, and the two ways to Duplex's throughput agree."""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest

from hwsim.catalogue import names, root
from hwsim.claim import Run
from hwsim.reproduce import check

checked = cache(check)  # each study once in a process


@pytest.fixture(scope="module", params=names("studies"))
def report(request):
    return checked(request.param)


def test_every_row_is_as_its_file_says(report):
    assert [(v.id, v.simulated, v.verdict) for v in report.verdicts if not v.ok] == []


def test_what_is_not_reproduced_has_a_reason(report):
    assert [v.id for v in report.verdicts if v.verdict != "reproduced" and not v.reason] == []


def test_orderings_hold_exactly_and_counting_rows_to_one_percent():
    for verdict in checked("duplex").verdicts:
        if verdict.unit == "bool" and verdict.verdict == "reproduced":
            assert verdict.simulated == verdict.published
        if verdict.metric in ("area", "batch_size", "capacity") and verdict.verdict == "reproduced":
            assert verdict.error is not None
            assert abs(verdict.error) <= 0.01


def test_duplex_headlines():
    found = {verdict.id: verdict for verdict in checked("duplex").verdicts}
    for name, tolerance in (("throughput.pe_et.max", 0.1), ("throughput.pe_et.avg", 0.1), ("energy.avg_saving", 0.1)):
        error = found[f"duplex.{name}"].error
        assert error is not None
        assert abs(error) <= tolerance
    modelled = [v for v in found.values() if v.role == "claim" and v.verdict != "not-modelled"]
    assert sum(v.verdict == "reproduced" for v in modelled) >= 0.85 * len(modelled)


@pytest.mark.parametrize(("arch", "within"), [("4x-h100-ideal", 0.001), ("4x-duplex", 0.01), ("4x-duplex-pe-et", 0.01)])
def test_stage_mix_in_closed_form_and_by_events(study, arch, within):
    case = Run(model="mixtral-8x7b", arch=arch, batch=32, prompt=256, output=256)
    assert study.throughput_by_events(case, stages=20) == pytest.approx(study.throughput(case), rel=within)


@pytest.mark.parametrize("dram", [0.885, 1.0])
def test_headlines_hold_over_the_range_of_what_is_assumed(study, dram):
    case = Run(model="mixtral-8x7b", args={"system": "duplex-pe-et", "over": "h100-ideal", "dram": dram})
    assert study.ratio_max(case) == pytest.approx(2.67, rel=0.1)
    assert study.ratio_mean(case) == pytest.approx(2.07, rel=0.1)
    assert study.saving_mean(case) == pytest.approx(0.2819, rel=0.1)


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("duplex_study", root("studies") / "duplex" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
