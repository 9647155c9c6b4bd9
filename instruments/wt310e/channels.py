"""What the meter delivers and how wrong it may be (Yokogawa IM WT310E-02EN, p. 7-7, 12 months after calibration)."""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

SOURCE = "Yokogawa IM WT310E-02EN, p. 7-7: power, 12 months"
ASSUMED = "Yokogawa IM WT310E-02EN, p. 7-7, taken to hold for this quantity or model too"
DOF = 8.0
DC, RMS = "dc", "rms"
ENERGY, POWER = "energy", "power"
# Shares of the reading and of the range; at 45 to 66 Hz where it is not DC.
GAIN = {DC: 0.1e-2, RMS: 0.1e-2}
GAIN_HIGH_DC = 0.3e-2
OF_RANGE = {DC: 0.2e-2, RMS: 0.05e-2}
# Of the older series.
OF_RANGE_BEFORE = {DC: 0.2e-2, RMS: 0.1e-2}
# At low power factor, of the apparent power, which is at most the range.
FACTOR = {DC: 0.0, RMS: 0.1e-2}
# Zero drift of DC for the one kelvin since it was zeroed: amperes by range, and share of the voltage range.
DRIFT_SMALL_A, DRIFT_LARGE_A, DRIFT_HIGH_A, DRIFT_V = 5e-6, 500e-6, 1e-3, 0.02e-2
SMALL_A = 0.2
# The integrator's clock, from memory.
TIMER = 0.02e-2


def channels(
    model: wire.Model, mode: str, source: str, range_v: float, range_a: float, refresh_s: float
) -> tuple[Channel, ...]:
    """`source` first: the integrator's energy, which misses nothing, or power with that beside it as a witness."""
    power_w = range_v * range_a
    drift_w = _drift_a(model, range_a) * range_v + DRIFT_V * range_v * range_a if mode == DC else 0.0
    power = _row(model, mode, power_w, drift_w + FACTOR[mode] * power_w, stated=model.stated)
    energy = Accuracy(
        range=None,
        gain=Limit(value=power.gain.value + TIMER, dof=power.gain.dof),
        offset=power.offset,
        source=power.source,
        verified=power.verified,
    )
    drift_a = _drift_a(model, range_a) if mode == DC else 0.0
    flows = (
        _channel("power", Quantity.POWER, "W", power, refresh_s),
        _channel("current", Quantity.CURRENT, "A", _row(model, mode, range_a, drift_a), refresh_s),
        _channel("voltage", Quantity.VOLTAGE, "V", _row(model, mode, range_v, DRIFT_V * range_v), refresh_s),
    )
    counts = Channel(
        name="energy" if source == ENERGY else "counted energy",
        quantity=Quantity.ENERGY,
        unit="J",
        kind=Kind.CUMULATIVE,
        accuracy=(energy,),
        refresh_s=refresh_s,
        witness=source != ENERGY,
    )
    return (counts, *flows) if source == ENERGY else (*flows, counts)


def usual() -> tuple[Channel, ...]:
    return channels(wire.MODELS["WT310E"], DC, ENERGY, 15.0, 1.0, 0.1)


def _drift_a(model: wire.Model, range_a: float) -> float:
    if model.high:
        return DRIFT_HIGH_A
    return DRIFT_SMALL_A if range_a <= SMALL_A else DRIFT_LARGE_A


def _row(model: wire.Model, mode: str, full: float, more: float, *, stated: bool = False) -> Accuracy:
    gain = GAIN_HIGH_DC if model.high and mode == DC else GAIN[mode]
    of_range = (OF_RANGE if model.stated else OF_RANGE_BEFORE)[mode]
    return Accuracy(
        range=None,
        gain=Limit(value=gain, dof=None if stated else DOF),
        offset=Limit(value=of_range * full + more, dof=None if stated else DOF),
        source=SOURCE if stated else ASSUMED,
        verified=stated,
    )


def _channel(name: str, quantity: Quantity, unit: str, row: Accuracy, refresh_s: float) -> Channel:
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=(row,), refresh_s=refresh_s)
