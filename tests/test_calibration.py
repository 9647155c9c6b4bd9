from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import CURRENT, header
from scipy import optimize
from typer.testing import CliRunner

from joulemeter import calibrating, calibrations, store
from joulemeter.calibrating import CalibrationPlan
from joulemeter.capture import (
    Accuracy,
    ArrayStream,
    Block,
    Channel,
    Distribution,
    Header,
    Kind,
    Limit,
    Quantity,
    Status,
    Timebase,
)
from joulemeter.caveat import Code
from joulemeter.cli.calibrate import app
from joulemeter.errors import DataError, UsageError
from joulemeter.instrument import Options
from joulemeter.physics.analyze import analyze
from joulemeter.physics.calibration import STABILITY, Calibration, Correction, apply, calibrated, check, correct, fit
from joulemeter.physics.reference import Point, Reading, readings, reference_points, resistor_points, zero_points
from joulemeter.plan import Meter
from joulemeter.synthetic import parse_load

OHMS, VOLTS = Limit(value=0.1), Limit(value=0.0015)


def steady(
    amperes: float, *, noise: float = 0.0, gain: float = 1.0, offset: float = 0.0, seconds: float = 1.0
) -> ArrayStream:
    rate, rng = 10_000.0, np.random.default_rng(1)
    values = gain * amperes + offset + rng.normal(0, noise, round(rate * seconds))
    only = replace(header(rate), channels=header(rate).channels[:1])
    return ArrayStream(name="meter", header=only, timebase=Timebase(rate_hz=rate), data={"current": values})


def point(truth: float, read: float, u: float = 1e-9, range_: int | None = None, scale: float = 0.0) -> Point:
    return Point(
        reading=Reading(channel="current", range=range_, mean=read, u=u, samples=1000), truth=truth, u_scale=scale
    )


NOTHING = Limit(value=0.0)


def made(head: Header, *corrections: Correction, serial: str = "A1") -> Calibration:
    return Calibration(
        instrument=head.instrument,
        model=head.model,
        serial=serial,
        created="2026-11-20T12:00:00+00:00",
        reference="100 ohm ± 0.10%",
        simulated=head.simulated,
        corrections=corrections,
        points=(),
    )


# -- readings ---------------------------------------------------------------------------------------------------------


def test_a_reading_is_the_mean_after_settling_with_the_noise_of_a_mean() -> None:
    one = steady(5e-3, noise=1e-4)
    one.data["current"][:1000] = 1.0
    (reading,) = readings(one)
    assert reading.samples == 8000
    assert reading.mean == pytest.approx(5e-3, abs=4e-4 / 8000**0.5)
    assert reading.u == pytest.approx(1e-4 / 8000**0.5, rel=0.5)


def test_each_range_is_read_by_itself_and_doubtful_samples_not_at_all() -> None:
    ranges = np.repeat(np.array([1, 2, 3], np.uint8), [4500, 5000, 500])
    values = np.where(ranges == 1, 1e-4, 1e-3)
    status = np.zeros(10_000, np.uint8)
    values[6000:6010], status[6000:6010] = 9.0, Status.ALTERED
    values[7000] = np.nan
    channel = Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE)
    one = steady(0.0)
    made_of = replace(
        one,
        header=replace(one.header, channels=(CURRENT, channel)),
        data={"current": values, "range": ranges},
        status=status,
    )
    found = readings(made_of)
    assert [(reading.range, reading.samples) for reading in found] == [(1, 2500), (2, 4989)]
    assert [reading.mean for reading in found] == pytest.approx([1e-4, 1e-3])
    with pytest.raises(DataError, match="too few good samples"):
        readings(steady(1.0, seconds=0.2))


def test_a_resistor_gives_current_and_power_with_the_tolerances_of_both() -> None:
    power = Channel(name="power", quantity=Quantity.POWER, unit="W", kind=Kind.MEAN)
    one = steady(0.03)
    both = replace(
        one,
        header=replace(one.header, channels=(CURRENT, power)),
        data={"current": one.data["current"], "power": 3 * one.data["current"]},
    )
    current, watts = resistor_points(both, 3.0, VOLTS, 100.0, OHMS)
    assert (current.truth, watts.truth) == pytest.approx((0.03, 0.09))
    # 0.05 % and 0.1 % as half-widths, by hand; power holds the voltage twice.
    assert current.u_scale == pytest.approx(math.hypot(0.05e-2, 0.1e-2) / 3**0.5)
    assert watts.u_scale == pytest.approx(math.hypot(2 * 0.05e-2, 0.1e-2) / 3**0.5)
    assert [p.truth for p in zero_points(both)] == [0.0, 0.0]


# -- the fit ----------------------------------------------------------------------------------------------------------


def test_two_currents_tell_gain_and_offset() -> None:
    truth = np.array([1e-3, 5e-3, 20e-3])
    (found,) = fit([point(x, 1.03 * x + 4e-7) for x in truth], header(1e3), NOTHING)
    assert found.gain == pytest.approx(1.03, rel=1e-5)
    assert found.offset == pytest.approx(4e-7, rel=1e-2)
    assert found.u_offset is not None
    assert found.u_offset < 5e-9


def test_the_fit_and_its_uncertainty_are_least_squares() -> None:
    rng = np.random.default_rng(4)
    truth, u = np.linspace(1e-3, 20e-3, 12), 2e-6
    read = 0.98 * truth + 1e-6 + rng.normal(0, u, 12)
    wide = header(1e3, accuracy=False)
    (found,) = fit([point(x, y, u) for x, y in zip(truth, read, strict=True)], wide, NOTHING)
    (gain, offset), covariance = optimize.curve_fit(
        lambda x, g, o: g * x + o, truth, read, p0=(1.0, 0.0), sigma=np.full(12, u), absolute_sigma=True
    )
    birge = max(1.0, float((((read - gain * truth - offset) / u) ** 2).sum() / 10) ** 0.5)
    assert (found.gain, found.offset) == pytest.approx((gain, offset), rel=1e-4)
    assert (found.u_gain, found.u_offset) == pytest.approx(tuple(birge * np.sqrt(np.diag(covariance))), rel=1e-3)


def test_scatter_beyond_the_points_own_noise_widens_the_result() -> None:
    rng = np.random.default_rng(5)
    truth = np.linspace(1e-3, 20e-3, 30)
    read = truth + rng.normal(0, 5e-6, 30)
    wide = header(1e3, accuracy=False)
    (claimed,) = fit([point(x, y, 5e-7) for x, y in zip(truth, read, strict=True)], wide, NOTHING)
    (honest,) = fit([point(x, y, 5e-6) for x, y in zip(truth, read, strict=True)], wide, NOTHING)
    assert claimed.u_gain == pytest.approx(honest.u_gain, rel=0.3)


def test_one_current_tells_the_gain_as_well_as_the_makers_offset_allows() -> None:
    """Offset limit 1 uA rectangular at 1 mA: 1e-6 / sqrt(3) / 1e-3 of the gain."""
    (found,) = fit([point(1e-3, 1.01e-3)], header(1e3), NOTHING)
    assert found.gain == pytest.approx(1.01, rel=1e-4)
    assert found.u_gain == pytest.approx(1e-3 / 3**0.5, rel=0.01)
    assert found.u_offset == pytest.approx(1e-6 / 3**0.5, rel=0.01)
    with pytest.raises(UsageError, match=r"gain and offset of current only together.*--zero --add"):
        fit([point(1e-3, 1.01e-3)], header(1e3, accuracy=False), NOTHING)


def test_a_zero_run_tells_the_offset_and_leaves_the_gain_to_the_maker() -> None:
    (zero,) = fit([point(0.0, 3e-7)], header(1e3), NOTHING)
    assert (zero.gain, zero.u_gain) == (1.0, None)
    assert zero.offset == pytest.approx(3e-7, rel=1e-3)
    (both,) = fit([point(0.0, 3e-7), point(1e-3, 1.01e-3 + 3e-7)], header(1e3), NOTHING)
    assert (both.gain, both.offset) == pytest.approx((1.01, 3e-7), rel=1e-3)
    assert both.u_gain is not None
    assert both.u_gain < 1e-5


def test_what_all_points_share_is_not_fitted_away() -> None:
    points = [point(x, x, scale=1e-3) for x in np.linspace(1e-3, 20e-3, 100)]
    (found,) = fit(points, header(1e3), STABILITY)
    assert found.u_gain == pytest.approx(math.hypot(1e-3, 3e-3), rel=1e-3)


def test_a_wiring_mistake_is_no_gain() -> None:
    with pytest.raises(DataError, match=r"reads 9.97 times.*Check the resistor"):
        fit([point(1e-3, 1e-2)], header(1e3))


def test_the_stated_interval_of_the_gain_covers_the_truth() -> None:
    """Of 1,000 calibrations with resistor, voltmeter and offset anywhere within their tolerances."""
    rng, held, trials = np.random.default_rng(6), 0, 1000
    for _ in range(trials):
        error = 1 + rng.uniform(-0.1e-2, 0.1e-2) + rng.uniform(-0.05e-2, 0.05e-2)
        offset, drift = rng.uniform(-1e-6, 1e-6), rng.normal(0, STABILITY.value)
        scale = math.hypot(0.1e-2, 0.05e-2) / 3**0.5
        points = [
            point(x, 1.005 * (1 + drift) * x * error + offset + rng.normal(0, 1e-6), 1e-6, scale=scale)
            for x in (2e-3, 5e-3)
        ]
        (found,) = fit(points, header(1e3))
        held += abs(found.gain - 1.005) <= 1.96 * (found.u_gain or 0.0)
    assert 0.93 <= held / trials <= 0.975


# -- a second meter in series -----------------------------------------------------------------------------------------


def test_a_reference_in_series_gives_gain_and_offset_of_each_range() -> None:
    rng = np.random.default_rng(8)
    load = parse_load("100uA/1s,300uA/1s,2mA/1s,8mA/1s,4mA/700ms")
    better = Accuracy(range=None, gain=Limit(value=1e-4), offset=Limit(value=1e-9), source="test", verified=True)
    true = load.mean_current_a(0, 10_000, 1000.0)
    reference = replace(
        steady(0.0),
        name="reference",
        header=replace(header(1000.0), channels=(replace(CURRENT, accuracy=(better,)),)),
        timebase=Timebase(rate_hz=1000.0),
        data={"current": true + rng.normal(0, 1e-8, 10_000)},
    )
    late = 300 * 10  # the meter began 0.3 s later
    raw = load.mean_current_a(late, 90_000, 10_000.0)
    ranges = (raw > 1e-3).astype(np.uint8)
    rows = tuple(replace(CURRENT.accuracy[0], range=k) for k in (0, 1))
    channel = Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE)
    read = raw * np.array([1.05, 0.97])[ranges] + np.array([2e-7, -3e-6])[ranges] + rng.normal(0, 1e-7, 90_000)
    meter = replace(
        steady(0.0),
        header=replace(header(10_000.0), channels=(replace(CURRENT, accuracy=rows), channel)),
        data={"current": read, "range": ranges},
    )
    low, high = fit(reference_points(meter, reference), meter.header, NOTHING)
    assert (low.range, high.range) == (0, 1)
    assert (low.gain, high.gain) == pytest.approx((1.05, 0.97), rel=3e-4)
    assert (low.offset, high.offset) == pytest.approx((2e-7, -3e-6), abs=1e-7)
    for row, gain in ((low, 1.05), (high, 0.97)):
        assert abs(row.gain - gain) <= 2 * (row.u_gain or 0.0)
    unknown = replace(reference, header=header(1000.0, accuracy=False))
    with pytest.raises(DataError, match="accuracy of the reference"):
        reference_points(meter, unknown)


# -- its use ----------------------------------------------------------------------------------------------------------


def test_samples_are_corrected_by_their_range_and_everything_else_stays() -> None:
    channel = Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE)
    head = replace(header(1e3), channels=(CURRENT, channel))
    block = Block(
        first_index=7,
        data={"current": np.array([1.1, 2.2, np.nan]), "range": np.array([0, 4, 0], np.uint8)},
        lost_before=3,
        status=np.array([0, 1, 4], np.uint8),
    )
    rows = [
        Correction(channel="current", range=0, gain=1.1, offset=0.0),
        Correction(channel="current", range=4, offset=0.2),
    ]
    (fixed,) = correct([block], head, rows)
    assert fixed.data["current"] == pytest.approx([1.0, 2.0, np.nan], nan_ok=True)
    assert (fixed.first_index, fixed.lost_before, fixed.status is block.status) == (7, 3, True)
    assert fixed.data["range"] is block.data["range"]
    assert block.data["current"][0] == 1.1
    (same,) = correct([block], head, rows[1:])
    assert same.data["current"][0] == 1.1


def test_the_header_states_the_fitted_uncertainty_and_says_so() -> None:
    head = header(1e3)
    row = Correction(channel="current", range=None, gain=1.05, u_gain=0.003, offset=1e-7, u_offset=2e-8, dof=12.0)
    (accuracy,) = apply(head, made(head, row)).channels[0].accuracy
    assert accuracy.gain == Limit(value=0.003, distribution=Distribution.NORMAL, dof=12.0)
    assert accuracy.offset == Limit(value=2e-8, distribution=Distribution.NORMAL, dof=12.0)
    assert "calibration of 2026-11-20 against 100 ohm" in accuracy.source
    (note,) = (caveat for caveat in apply(head, made(head, row)).caveats if caveat.code is Code.CALIBRATED)
    assert "gain 1.0500 ± 0.30%" in note.text
    zero = Correction(channel="current", range=None, u_offset=2e-8)
    (accuracy,) = apply(head, made(head, zero)).channels[0].accuracy
    assert accuracy.gain == CURRENT.accuracy[0].gain


def test_a_calibration_fits_one_meter_only() -> None:
    real = replace(header(1e3), serial="A1", parameters={"calibration": {"R": [1.0]}})
    good = replace(made(real), constants={"calibration": {"R": [1.0]}})
    check(real, good)
    for other, why in (
        (replace(real, serial="B2"), "number A1; the meter is number B2"),
        (replace(real, simulated=True), "of a real meter does not fit a simulated one"),
        (replace(real, instrument="other"), "does not fit"),
        (replace(real, parameters={"calibration": {"R": [1.1]}}), "have changed since"),
    ):
        with pytest.raises(UsageError, match=why):
            apply(other, good)
    with pytest.raises(UsageError, match="of a simulated meter does not fit a real one"):
        check(real, replace(good, simulated=True))


# -- the whole way, on a simulated PPK2 -------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("JOULEMETER_DATA", str(tmp_path / "data"))
    yield tmp_path


def test_a_resistor_takes_a_ppk2_from_ten_per_cent_to_half_a_per_cent(home: Path) -> None:
    """A unit that reads 5 % high without knowing: the resistor finds it, and the budget of a measurement shrinks."""
    from joulemeter import session
    from joulemeter.plan import Plan

    hidden = 1.05
    meter = Meter(key="ppk2", address="")
    path, calibration = calibrating.calibrate(
        CalibrationPlan(
            meter=meter,
            output=home,
            ohms=(100.0, 0.1),
            supplies=(3.0,),
            volts=((2.998, 0.0015),),
            serial="bench 7",
            simulate=True,
            simulated_gain=hidden,
            duration_s=0.6,
        ),
        lambda _: None,
    )
    (row,) = calibration.corrections
    assert row.range == 3
    assert row.gain == pytest.approx(hidden, rel=1e-3)
    assert row.u_gain is not None
    assert 2 * row.u_gain < 0.007
    assert calibration.simulated
    assert path.parent == home / "data" / "calibrations" / "ppk2" / "bench-7"

    load = parse_load("8mA/20ms/d0,250uA/30ms")
    folder, _ = session.record(
        Plan(
            meters=(Meter(key="ppk2", address="", options=Options(supply_v=3.0)),),
            output=home,
            name="high",
            trigger="d0",
            simulate=True,
            load=f"{hidden * 8e-3!r}A/20ms/d0,250uA/30ms",
            duration_s=1.0,
            inferences_per_window=1,
        ),
        lambda _: None,
    )
    opened = store.open_run(folder)
    (stream,) = opened.streams
    assert isinstance(stream, store.RunStream)
    assert calibrations.find(stream.header) is None
    found = calibrations.find(stream.header, "bench 7")
    assert found == calibration
    fixed = calibrated(stream, found)
    truth = 3.0 * (load.pulse_charge_c(0) or 0.0)
    before = analyze(opened).result
    after = analyze(replace(opened, streams=(fixed,))).result
    assert before.energy_per_inference_j.median == pytest.approx(hidden * truth, rel=2e-3)
    assert after.energy_per_inference_j.median == pytest.approx(truth, rel=2e-3)
    gains = [
        next(term for term in result.uncertainty if term.term.startswith("gain")).contribution_j / truth
        for result in (before, after)
    ]
    assert gains[0] == pytest.approx(0.10 * hidden, rel=0.02)
    assert 2 * gains[1] < 0.007
    assert Code.CALIBRATED in {caveat.code for caveat in after.caveats}


def test_the_command_with_a_zero_run_added(home: Path) -> None:
    run = CliRunner()
    common = ["--meter", "ppk2", "--simulate", "--duration", "400ms", "--quiet", "-o", str(home / "runs"), "--json"]
    first = run.invoke(app, [*common, "--load", "68kohm±0.1%", "--supply", "3.0V", "--voltage", "3.0V±0.05%"])
    assert first.exit_code == 0, first.output
    answer = json.loads(first.output)
    assert answer["serial"] == "simulator"
    assert answer["corrections"][0]["range"] == 0
    assert answer["corrections"][0]["gain"] == pytest.approx(1.0, abs=2e-3)
    second = run.invoke(app, [*common, "--zero", "--add", "--supply", "3.0V"])
    assert second.exit_code == 0, second.output
    both = json.loads(second.output)
    assert len(both["points"]) == 2
    # By hand: stability 0.3 %, resistor and voltmeter 0.065 %, and until the zero run the maker's 0.2 uA at 44 uA.
    assert answer["corrections"][0]["u_gain"] == pytest.approx(math.hypot(3e-3, 0.65e-3, 0.2 / 44.1 / 3**0.5), rel=0.02)
    assert both["corrections"][0]["u_gain"] == pytest.approx(math.hypot(3e-3, 0.65e-3), rel=0.02)
    assert both["sha256"] != answer["sha256"]
    newest = calibrations.newest("ppk2", "simulator", simulated=True)
    assert newest is not None
    assert calibrations.digest(newest) == both["sha256"]
    assert calibrations.newest("ppk2", "simulator", simulated=False) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs one truth"),
        ({"zero": True, "ohms": (100.0, 0.1)}, "needs one truth"),
        ({"ohms": (100.0, 0.1)}, "nobody knows what the resistor draws"),
        ({"ohms": (100.0, 0.1), "supplies": (3.0, 2.0), "volts": ((3.0, 0.01),)}, "2 supplies and 1 measured"),
        ({"reference": Meter(key="ppk2", address="")}, "do not look at one board"),
    ],
)
def test_what_cannot_work_is_refused_before_recording(home: Path, options: dict[str, object], why: str) -> None:
    plan = CalibrationPlan(
        meter=Meter(key="ppk2", address=""),
        output=home / "runs",
        simulate=True,
        **options,  # type: ignore[arg-type]
    )
    with pytest.raises(UsageError, match=why):
        calibrating.calibrate(plan, lambda _: None)
    assert not (home / "runs").exists()


def test_kept_calibrations_come_back_and_damaged_ones_are_told(home: Path) -> None:
    head = replace(header(1e3), serial="A1")
    older = made(head, Correction(channel="current", range=None, gain=1.01, u_gain=0.01))
    newer = replace(older, created="2026-11-21T08:00:00+00:00")
    paths = [calibrations.save(one) for one in (newer, older, older)]
    assert [path.name for path in paths] == [
        "2026-11-21T08-00-00Z.json",
        "2026-11-20T12-00-00Z.json",
        "2026-11-20T12-00-00Z-2.json",
    ]
    assert calibrations.find(head) == newer
    assert calibrations.find(replace(head, serial=None)) is None
    paths[0].write_text('{"schema": "joulemeter.calibration/1"}')
    with pytest.raises(DataError, match="is damaged"):
        calibrations.find(head)


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JOULEMETER_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert calibrations.folder() == tmp_path / "joulemeter" / "calibrations"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert calibrations.folder() == tmp_path / "me" / ".local" / "share" / "joulemeter" / "calibrations"


def test_a_real_meter_without_a_number_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = [steady(0.03)]
    monkeypatch.setattr(calibrating, "_run", lambda *_: nameless)
    plan = CalibrationPlan(meter=Meter(key="ppk2", address=""), output=home, ohms=(100.0, 0.1), volts=((3.0, 0.0015),))
    with pytest.raises(UsageError, match=r"tells no serial number.*--meter-serial NAME"):
        calibrating.calibrate(plan, lambda _: None)
    _, kept = calibrating.calibrate(replace(plan, serial="left one"), lambda _: None)
    assert (kept.serial, kept.simulated) == ("left one", False)


def test_a_second_calibration_sees_the_meter_and_not_the_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would find a gain of 1 and undo the correction."""
    plan = CalibrationPlan(
        meter=Meter(key="ppk2", address=""),
        output=home / "runs",
        ohms=(100.0, 0.1),
        volts=((3.0, 0.0015),),
        simulate=True,
        simulated_gain=1.05,
        duration_s=0.4,
    )
    calibrating.calibrate(plan, lambda _: None)
    monkeypatch.setattr(calibrations, "find", lambda header: calibrations.newest("ppk2", "simulator", simulated=True))
    _, second = calibrating.calibrate(plan, lambda _: None)
    assert second.corrections[0].gain == pytest.approx(1.05, rel=1e-3)
