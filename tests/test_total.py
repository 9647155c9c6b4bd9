"""Several meters on parts of one device, added."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import loaded, metered

from joulemeter.capture import ArrayStream, Event, Kind, Quantity, Recording, Timebase
from joulemeter.cli import text
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.analyze import Request, analyze
from joulemeter.report import html
from joulemeter.synthetic import Load, parse_load

HOST_NS = 7_000_000_000_000
CORE, RADIO = parse_load("8mA/20ms/d0,1mA/80ms"), parse_load("30mA/20ms/d0,2mA/80ms")


def at(stream: ArrayStream, name: str, began_ns: int, u_s: float = 1e-6, drift_ppm: float | None = None) -> ArrayStream:
    timebase = replace(
        stream.timebase, monotonic_ns=began_ns, utc_ns=began_ns, u_host_s=u_s, u_drift_ppm=0.0, drift_ppm=drift_ppm
    )
    return replace(stream, name=name, timebase=timebase)


def later(load: Load, lead_s: float) -> Load:
    """The same board seen by a meter that began `lead_s` before the load did."""
    return replace(load, lead_s=lead_s, lead_a=load.steps[-1].current_a)


def both(**changes: float) -> Recording:
    """One meter with the trigger line, and one that began 30 ms before it and samples at another rate."""
    first = at(loaded(CORE, 2.0, 100_000.0), "core", HOST_NS)
    second = at(loaded(later(RADIO, 0.03), 2.1, 25_000.0), "radio", HOST_NS - 30_000_000, **changes)
    return Recording(name="two rails", streams=(first, second), trigger="d0", meta={"add": True})


def test_energies_of_two_rails_add_up_to_the_closed_form() -> None:
    result = analyze(both()).result
    expected = 3.0 * 20e-3 * (8e-3 + 30e-3)
    assert result.energy_per_inference_j.median == pytest.approx(expected, rel=2e-3)
    assert result.power_w.idle == pytest.approx(3.0 * 3e-3, rel=1e-2)
    assert result.net_energy_per_inference_j is not None
    assert result.net_energy_per_inference_j.median == pytest.approx(expected - 3.0 * 3e-3 * 20e-3, rel=5e-3)
    assert result.charge_per_inference_c is None
    assert result.power_w.peak is None
    assert result.instrument is not None
    # Two supplies have no one voltage.
    assert result.instrument["voltage_v"] is None and result.instrument["added"][0]["voltage_v"] == 3.0
    shares = [share["energy_per_inference_j"] for share in result.instrument["added"]]
    assert shares == pytest.approx([3.0 * 20e-3 * 8e-3, 3.0 * 20e-3 * 30e-3], rel=3e-3)
    assert sum(shares) == pytest.approx(result.energy_per_inference_j.median)


def test_the_budget_names_each_meter_and_adds_them_as_independent() -> None:
    whole = analyze(both()).result
    alone = analyze(replace(both(), meta={}), Request(add=False)).result
    names = [term.term for term in whole.uncertainty]
    assert "core: gain" in names and "radio: gain" in names
    assert names.count("repeatability") <= 1
    gains = [term.contribution_j for term in whole.uncertainty if term.term.endswith(": gain")]
    assert gains == pytest.approx([0.01 * 480e-6, 0.01 * 1800e-6], rel=5e-3)
    assert whole.energy_per_inference_j.u_systematic is not None
    assert alone.energy_per_inference_j.u_systematic is not None
    assert whole.energy_per_inference_j.u_systematic >= math.hypot(*gains)
    assert alone.agreement is not None and whole.agreement is None


def test_the_other_clock_may_drift() -> None:
    """A stream that counts 200 ppm fast holds the window later by that share of the time since it began."""
    recording = both()
    core, radio = recording.streams
    assert isinstance(radio, ArrayStream)
    fast = replace(radio, timebase=replace(radio.timebase, drift_ppm=200.0))
    moved = analyze(replace(recording, streams=(core, fast))).result.energy_per_inference_j.median
    assert moved is not None
    # 0.4 ms at the end of two seconds: 2 % of a 20 ms window.
    assert moved < 0.999 * 3.0 * 20e-3 * 38e-3


def test_windows_that_one_meter_lost_are_left_out() -> None:
    recording = both()
    radio = recording.streams[1]
    assert isinstance(radio, ArrayStream)
    short = replace(radio, data={name: values[: len(values) // 2] for name, values in radio.data.items()})
    result = analyze(replace(recording, streams=(recording.streams[0], short))).result
    assert result.windows.rejected["lost-samples"] >= 9
    assert result.energy_per_inference_j.median == pytest.approx(3.0 * 20e-3 * 38e-3, rel=2e-3)


@pytest.mark.parametrize(
    ("recording", "error", "words"),
    [
        (replace(both(), streams=both().streams[:1]), UsageError, "nothing to add"),
        (both(u_s=2e-3), DataError, "time of radio"),
    ],
)
def test_what_cannot_be_added_is_refused(recording: Recording, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        analyze(recording)


def test_streams_without_power_or_without_the_hosts_clock_are_refused() -> None:
    recording = both()
    core, radio = recording.streams
    assert isinstance(radio, ArrayStream)
    unknown = replace(radio, header=replace(radio.header, voltage=None))
    with pytest.raises(UsageError, match="has no power"):
        analyze(replace(recording, streams=(core, unknown)))
    unrelated = replace(radio, timebase=Timebase(rate_hz=radio.timebase.rate_hz))
    with pytest.raises(UsageError, match="never related"):
        analyze(replace(recording, streams=(core, unrelated)))


def test_counters_and_samples_can_be_added() -> None:
    """A host's counter of energy beside an accelerator's power, windows stamped by the host."""
    time_s = np.arange(2000, dtype=np.float64) * 1e-3
    counter = metered({Quantity.ENERGY: np.multiply(20.0, time_s)}, Kind.CUMULATIVE, 1000.0, refresh_s=1e-3)
    power = metered({Quantity.POWER: np.full(2000, 5.0)}, Kind.MEAN, 1000.0)
    stamps = [
        Event(label=label, source="host", monotonic_ns=HOST_NS + at_ms * 1_000_000, u_s=1e-6)
        for window in range(8)
        for label, at_ms in (("begin", 100 + 200 * window), ("end", 200 + 200 * window))
    ]
    recording = Recording(
        name="host and accelerator",
        streams=(at(counter, "rapl", HOST_NS), at(power, "gpu", HOST_NS)),
        trigger="host",
        events=tuple(stamps),
        meta={"add": True, "inferences_per_window": 10},
    )
    result = analyze(recording).result
    assert result.energy_per_inference_j.median == pytest.approx((20.0 + 5.0) * 0.1 / 10, rel=1e-6)
    # Neither states its accuracy, so there is no total.
    assert result.energy_per_inference_j.expanded_k2 is None


def test_of_three_meters_that_are_compared_the_worst_is_told() -> None:
    right = at(loaded(CORE, 2.0, 100_000.0), "right", HOST_NS)
    near = at(loaded(CORE, 2.0, 25_000.0), "near", HOST_NS)
    far = loaded(CORE, 2.0, 50_000.0)
    wrong = at(replace(far, data={**far.data, "current": 1.5 * far.data["current"]}), "wrong", HOST_NS)
    result = analyze(Recording(name="three", streams=(right, near, wrong), trigger="d0")).result
    assert result.agreement is not None
    assert result.agreement["b"] == "wrong"
    assert sum("wrong reads" in caveat.text for caveat in result.caveats) == 1


def test_both_faces_tell_what_was_added() -> None:
    result = analyze(both()).result
    shown = text.render(result)
    assert "of it core" in shown and "of it radio" in shown
    assert max(map(len, shown.splitlines())) <= 80
    page = html.render(result.to_dict(), [], None)
    assert "Meters that were added" in page and page.count("test meter") >= 2
    assert "Meters that were added" not in html.render(analyze(both(), Request(add=False)).result.to_dict(), [], None)
