"""`auto`: which meter is taken, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from joulemeter import choosing, plan, registry, session
from joulemeter.capture import Channel, Kind, Quantity
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Found, InstrumentModule, Options

CURRENT = Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN)
VOLTAGE = Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.MEAN)
LINES = Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=("d0", "d1"))
FALLS = replace(LINES, lines=("d7",), falls_only=True)


def meter(
    key: str, channels: Sequence[Channel], rate_hz: float, *, units: int = 1, onboard: bool = False, problem: str = ""
) -> InstrumentModule:
    info = replace(
        registry.instrument("ppk2").INFO, key=key, channels=tuple(channels), rates_hz=(rate_hz,), onboard=onboard
    )
    found = [
        Found(
            key=key,
            address=f"/dev/{key}{k}",
            description=f"{key} number {k}",
            problem=problem or None,
            remedy="Do something." if problem else None,
        )
        for k in range(units)
    ]
    return cast(InstrumentModule, SimpleNamespace(INFO=info, discover=lambda: found))


BEST = meter("analyser", (CURRENT, VOLTAGE, LINES), 1e6)
AMMETER = meter("ammeter", (CURRENT, LINES), 1e5)
FALLING = meter("falling", (CURRENT, VOLTAGE, FALLS), 1e5)
INLINE = meter("inline", (CURRENT, VOLTAGE), 10.0)
FASTER_INLINE = meter("inline-fast", (CURRENT, VOLTAGE), 100.0)
HOST = meter("host", (CURRENT, VOLTAGE), 1e6, onboard=True)
ORDER = (BEST, AMMETER, FALLING, FASTER_INLINE, INLINE, HOST)


def of(*modules: InstrumentModule) -> dict[str, InstrumentModule]:
    return {module.INFO.key: module for module in modules}


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_order_is_the_stated_one(first: int) -> None:
    left = ORDER[first:]
    unit, _ = choosing.best(None, runs_here=True, modules=of(*reversed(left)))
    assert unit.key == left[0].INFO.key


def test_a_sensor_of_this_host_is_not_taken_for_a_board() -> None:
    with pytest.raises(NotFoundError, match="measures this host"):
        choosing.best(None, runs_here=False, modules=of(HOST))


def test_the_trigger_line_decides_who_can_be_taken() -> None:
    unit, _ = choosing.best("d7:falling-pairs", runs_here=False, modules=of(BEST, AMMETER, FALLING))
    assert unit.key == "falling"
    with pytest.raises(NotFoundError, match="no line d1"):
        choosing.best("d1", runs_here=False, modules=of(FALLING, INLINE))


def test_what_cannot_be_opened_is_passed_over_and_named() -> None:
    broken = meter("analyser", (CURRENT, VOLTAGE, LINES), 1e6, problem="No permission to open it.")
    unit, _ = choosing.best(None, runs_here=False, modules=of(broken, INLINE))
    assert unit.key == "inline"
    with pytest.raises(NotFoundError, match="analyser@/dev/analyser0: No permission"):
        choosing.best(None, runs_here=False, modules=of(broken))


def test_two_of_the_best_kind_must_be_named() -> None:
    with pytest.raises(UsageError, match="there are 2") as refused:
        choosing.best(None, runs_here=False, modules=of(meter("ammeter", (CURRENT, LINES), 1e5, units=2), INLINE))
    assert "ammeter@/dev/ammeter1" in refused.value.remedy


def test_nothing_at_all_says_what_to_do() -> None:
    with pytest.raises(NotFoundError, match="None was found") as refused:
        choosing.best("d0", runs_here=True, modules={})
    assert "scan" in refused.value.remedy


@pytest.mark.parametrize(
    ("workload", "here"),
    [
        (None, False),
        ("tflite:model.tflite", True),
        ("python:math:factorial", True),
        ("tflite:ssh://pi@board/model.tflite", False),
        ("mlperf-tiny@/dev/ttyACM0", False),
        ("uart@/dev/ttyACM0", False),
    ],
)
def test_who_runs_the_model(workload: str | None, here: bool) -> None:
    assert session.runs_here(workload) is here


def test_the_shipped_meters_have_different_ranks() -> None:
    infos = [module.INFO for _, module in registry.instruments()]
    ranked = [info.key for info in sorted(infos, key=choosing.rank)]
    assert ranked.index("ppk2") < ranked.index("um25c")
    assert len(set(ranked)) == len(infos)


def several(*keys: str, **options: Any) -> tuple[plan.Meter, ...]:
    return plan.shared([plan.Meter(key=key, address="", options=Options(**options)) for key in keys])


def test_of_several_meters_each_takes_what_it_can() -> None:
    source, analyser = several(
        "ppk2", "joulescope", supply_v=3.0, settings={"filter": "raw", "joulescope.rate": "1kHz"}
    )
    assert (source.options.supply_v, dict(source.options.settings)) == (3.0, {"filter": "raw"})
    assert (analyser.options.supply_v, dict(analyser.options.settings)) == (None, {"rate": "1kHz"})
    ammeter, analyser = several("ppk2", "joulescope", declared_v=3.3)
    assert (ammeter.options.declared_v, analyser.options.declared_v) == (3.3, None)
    one, other = several("hwmon", "rapl", settings={"interval": "20ms"})
    assert dict(one.options.settings) == dict(other.options.settings) == {"interval": "20ms"}


@pytest.mark.parametrize(
    ("keys", "options", "words"),
    [
        (("rapl", "nvml"), {"supply_v": 3.0}, "can supply"),
        (("rapl", "nvml"), {"declared_v": 3.0}, "needs a voltage"),
        (("ppk2", "rapl"), {"settings": {"no-such": "1"}}, "no-such"),
        (("ppk2", "rapl"), {"settings": {"nvml.source": "energy"}}, "nvml.source"),
    ],
)
def test_an_option_that_no_meter_takes_is_refused(keys: tuple[str, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        several(*keys, **options)


def test_one_meter_keeps_its_options_so_that_its_driver_can_refuse_them() -> None:
    (alone,) = several("rapl", supply_v=3.0)
    assert alone.options.supply_v == 3.0
