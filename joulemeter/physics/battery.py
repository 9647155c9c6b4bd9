"""Battery life by the simple formula: capacity over mean current. An upper bound, and said to be one.

It knows nothing of internal resistance, cut-off under load, self-discharge or temperature, each of which shortens life.
"""

from __future__ import annotations

from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.result import Battery, Result
from joulemeter.units import show, show_duration


def simple_life(
    result: Result,
    *,
    cell: str,
    capacity_c: float,
    pulse_limit_a: float | None,
    every_s: float,
) -> tuple[Battery | None, list[Caveat]]:
    """Life of `cell` with one inference each `every_s` and the measured idle current in between.

    mean current = (charge per inference + idle current * (every - latency)) / every. None with a caveat where charge
    or idle current is not known, or where the inferences do not fit into the period.
    """
    volts = (result.instrument or {}).get("voltage_v")
    idle_w, latency_s, charge_c = result.power_w.idle, result.latency_s.median, result.charge_per_inference_c
    if charge_c is None or idle_w is None or latency_s is None or not volts:
        return None, [doubt(Code.BATTERY_SIMPLE, "Battery life is unknown: charge or idle current was not measured.")]
    if every_s < latency_s:
        return None, [
            doubt(
                Code.BATTERY_SIMPLE,
                f"One inference each {show_duration(every_s)} is impossible: it takes {show_duration(latency_s)}.",
            )
        ]
    mean_a = (charge_c + idle_w / volts * (every_s - latency_s)) / every_s
    life_s = capacity_c / mean_a
    caveats = [
        note(
            Code.BATTERY_SIMPLE,
            f"Life is {show(capacity_c / 3600, 'Ah')} over the mean current: an upper bound without internal "
            "resistance, cut-off, self-discharge or temperature, at the voltage measured here.",
        )
    ]
    peak_a = None if result.power_w.peak is None else result.power_w.peak / volts
    if pulse_limit_a is not None and peak_a is not None and peak_a > pulse_limit_a:
        caveats.append(
            doubt(
                Code.BATTERY_PULSE,
                f"The board draws pulses of {show(peak_a, 'A', 3)}; a {cell} is listed for "
                f"{show(pulse_limit_a, 'A', 3)}. The rail may collapse at the first pulse, and real life may be far "
                "shorter. Use a larger cell or a capacitor.",
                peak_a=peak_a,
                limit_a=pulse_limit_a,
            )
        )
    battery = Battery(
        cell=cell,
        life_s={"p5": None, "p50": None, "p95": None},
        cause="capacity used up (simple formula)",
        naive_life_s=life_s,
        inferences=life_s / every_s,
        every_s=every_s,
        mean_current_a=mean_a,
        capacity_c=capacity_c,
        basis=result.power_w.basis,
    )
    return battery, caveats
