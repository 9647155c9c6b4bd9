"""A result, or a row that somebody published, as one line of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from joulemeter.capture import Basis
from joulemeter.caveat import Code, Severity
from joulemeter.comparison import work
from joulemeter.comparison.amounts import (
    ABOVE_IDLE,
    EDP,
    ENERGY,
    LATENCY,
    LIFE,
    MEAN_POWER,
    NET,
    PER_JOULE,
    PER_SECOND,
    POWER,
    TOTAL,
    UNKNOWN,
    Amount,
    Rests,
)
from joulemeter.comparison.work import Work
from joulemeter.literature import Row
from joulemeter.physics.rules import Measured
from joulemeter.result import Result, Summary

# A source that gives the energy above idle says so in what its figures cover.
_ABOVE_IDLE = "increment over the idle"
# What the boundary of a published row is called in the words of the device profiles; the first that fits counts.
_SCOPES = (
    ("over the idle", "above idle"),
    ("ac mains", "system_ac"),
    ("at the wall", "system_ac"),
    ("supply of the device under test", "mcu_supply"),
    ("evb mcu supply", "mcu_supply"),
    ("gpu", "gpu_board"),
    ("accelerator module only", "accelerator_only"),
    ("whole board", "board_dc"),
    ("whole system", "board_dc"),
    ("module", "module_rail"),
)
# One precision under its several names.
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "f32": "fp32", "f16": "fp16"}


class Origin(StrEnum):
    """Where a line comes from. These are never shown as one list.

    `BOUND`: a published time with a rated or peak power, so that the energy is at most so much, and not known.
    """

    MEASURED = "measured"
    SIMULATED = "simulated"
    PUBLISHED = "published"
    BOUND = "upper bound"

    @property
    def ours(self) -> bool:
        """Whether it is a result of a recording, and not a row of the literature."""
        return self in (Origin.MEASURED, Origin.SIMULATED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One line. `amounts` has every quantity of amounts.QUANTITIES; `per` is what one "inference" of it is.

    `energy_max_j` is an upper bound where the energy is not known. `scope` is what energy and power cover, one of
    profile.Scope where it is known. `serial` identifies the meter. `result` is that which the ratio to other results is
    made from, None for published rows. `troubles` are the doubts that the result carries itself.
    """

    name: str
    origin: Origin
    basis: Basis
    amounts: Mapping[str, Amount]
    source: str
    per: str = "inference"
    work: Work | None = None
    model: str | None = None
    device: str | None = None
    device_class: str | None = None
    runtime: str | None = None
    precision: str | None = None
    batch: int | None = None
    scope: str | None = None
    boundary: str | None = None
    meter: str | None = None
    serial: str | None = None
    supply_v: float | None = None
    energy_max_j: float | None = None
    life_reason: str | None = None
    published: Row | None = None
    result: Result | None = None
    windows_j: Sequence[float] | None = None
    troubles: tuple[str, ...] = field(default=())

    @property
    def simulated(self) -> bool:
        return self.origin is Origin.SIMULATED

    def amount(self, quantity: str) -> Amount:
        return self.amounts.get(quantity, UNKNOWN)


# -- results -----------------------------------------------------------------------------------------------------------


def of_result(
    measured: Measured,
    source: str = "",
    *,
    model: str | None = None,
    scope: str | None = None,
    one_meter: bool = False,
    life: Amount | None = None,
) -> Entry:
    """A result as an entry. `source` is the file it comes from.

    `model` is what ran where the result does not say, `scope` what the meter saw. Real meters without a serial number
    are taken to be different ones, so that no gain cancels between them, unless `one_meter`. `life` is that on the cell
    asked about.
    """
    result = measured.result
    given, device, meter = result.workload or {}, result.device or {}, result.instrument or {}
    said = given.get("model")
    serial = meter.get("serial")
    energy = _summarised(result.energy_per_inference_j)
    net = _summarised(result.net_energy_per_inference_j) if result.net_energy_per_inference_j else None
    latency = _summarised(result.latency_s)
    joined = any(caveat.code is Code.TRIALS_JOINED for caveat in result.caveats)
    power = result.power_w
    net = net or Amount(reason=result.net_reason or "idle power is unknown")
    amounts = {
        ENERGY: energy,
        NET: net,
        LATENCY: latency,
        PER_JOULE: energy.inverse(),
        PER_SECOND: latency.inverse(),
        TOTAL: energy.inverse(),
        ABOVE_IDLE: net.inverse(),
        EDP: _product(energy, latency),
        POWER: Amount(value=power.inference, reason="power is unavailable"),
        MEAN_POWER: Amount(reason="the recording is several, joined")
        if joined
        else Amount(value=power.mean, reason="power is unavailable"),
        LIFE: life or Amount(reason="no cell was asked about"),
    }
    comparable = result
    if serial is None and not one_meter and not result.simulated and result.instrument is not None:
        # So that it equals no other meter without one; the result itself stays as it is.
        comparable = replace(result, instrument={**result.instrument, "serial": f"unknown, {source or id(measured)}"})
    return Entry(
        name=result.name or "a result without a name",
        origin=Origin.SIMULATED if result.simulated else Origin.MEASURED,
        basis=result.energy_per_inference_j.basis,
        amounts=amounts,
        source=source,
        work=work.of_workload(given) or work.of_model(model),
        model=_text(said) or model,
        device=_text(device.get("name")),
        device_class=_text(device.get("class")),
        runtime=_text(given.get("runtime")),
        precision=_precision(_text(given.get("precision"))),
        batch=given.get("batch") if isinstance(given.get("batch"), int) else None,
        scope=scope,
        boundary=scope,
        meter=_text(meter.get("model")),
        serial=_text(serial),
        supply_v=_volts(meter.get("voltage_v")),
        result=comparable,
        windows_j=measured.windows_j,
        troubles=tuple(dict.fromkeys(str(one.code) for one in result.caveats if one.severity is not Severity.NOTE)),
    )


def _summarised(summary: Summary) -> Amount:
    if summary.median is None:
        return Amount(reason=summary.reason or "it was not measured")
    if summary.ci95_total is not None:
        low, high, rests = *summary.ci95_total, Rests.TOTAL
    elif summary.ci95 is not None:
        low, high, rests = *summary.ci95, Rests.SCATTER
    else:
        return Amount(value=summary.median)
    return Amount(value=summary.median, low=low, high=high, rests=rests)


def _product(a: Amount, b: Amount) -> Amount:
    """Their product. The ends are taken together, as if both erred to the same side: never too narrow."""
    if a.value is None or b.value is None:
        return Amount(reason=(a if a.value is None else b).reason)
    if not a.comparable or not b.comparable:
        return Amount(reason="one of its factors is not above 0")
    if a.low is None or a.high is None or b.low is None or b.high is None or min(a.low, b.low) < 0:
        return Amount(value=a.value * b.value)
    rests = Rests.TOTAL if a.rests is b.rests is Rests.TOTAL else Rests.SCATTER
    return Amount(value=a.value * b.value, low=a.low * b.low, high=a.high * b.high, rests=rests)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _volts(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _precision(text: str | None) -> str | None:
    return None if text is None else _PRECISIONS.get(text.casefold(), text.casefold())


# -- published rows ----------------------------------------------------------------------------------------------------


def of_row(row: Row) -> Entry:
    """A published row as an entry: no interval unless its source prints one."""
    net = row.boundary is not None and _ABOVE_IDLE in row.boundary
    bound = row.energy_j is None and row.energy_max_j is not None
    silent = Amount(reason="the source does not state it")
    energy = Amount(value=row.energy_j) if row.energy_j is not None else silent
    if bound:
        energy = Amount(reason="the source gives a rated or peak power, which bounds the energy and is not its value")
    latency = Amount(value=row.latency_s) if row.latency_s is not None else silent
    rate = Amount(
        value=row.rate_hz if row.rate_hz is not None else 1 / row.time_s if row.time_s is not None else None,
        low=row.rate_min_hz,
        high=row.rate_max_hz,
        rests=Rests.PRINTED if row.rate_min_hz is not None or row.rate_max_hz is not None else Rests.NOTHING,
        reason=None if row.time_s is not None else silent.reason,
    )
    whole, above = (silent, energy) if net else (energy, silent)
    amounts = {
        ENERGY: whole,
        NET: above,
        LATENCY: latency,
        PER_JOULE: whole.inverse(),
        PER_SECOND: rate,
        TOTAL: whole.inverse(),
        ABOVE_IDLE: above.inverse(),
        EDP: _product(whole, latency) if row.batch in (None, 1) else Amount(reason="latency is that of a batch"),
        POWER: Amount(value=row.power_w) if row.power_w is not None and not net else silent,
        MEAN_POWER: silent,
        LIFE: Amount(reason="nobody publishes what it draws between inferences"),
    }
    return Entry(
        name=_label(row),
        origin=Origin.BOUND if bound else Origin.PUBLISHED,
        basis=row.basis,
        amounts=amounts,
        source=row.source,
        per=row.per,
        work=work.of_row(row),
        model=row.model,
        device=row.device,
        device_class=row.device_class,
        runtime=row.runtime,
        precision=_precision(row.precision),
        batch=row.batch,
        scope=_scope(row.boundary),
        boundary=row.boundary,
        meter=row.instrument,
        supply_v=row.supply_v,
        energy_max_j=row.energy_max_j,
        published=row,
    )


def _label(row: Row) -> str:
    """What tells it from the others of its model, the telling part first."""
    if row.table == "mlperf_tiny":
        version, submitter = row.name.split("/")[1:3]
        variant = f" {row.model}" if row.model != row.benchmark else ""
        return f"{version} {row.device}{variant}, {submitter}"
    batch = f"batch {row.batch}" if row.batch not in (None, 1) else None
    parts = (
        row.device,
        _precision(row.precision),
        batch,
        row.scenario,
        row.runtime,
        str(row.year) if row.year else None,
    )
    return ", ".join(part for part in parts if part)


def _scope(boundary: str | None) -> str | None:
    text = (boundary or "").casefold()
    return next((scope for words, scope in _SCOPES if words in text), None)
