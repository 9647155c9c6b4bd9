"""Loads: what is refused, and waveforms made few without losing charge or peaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from battery_cells import GOOD
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.battery import Event, Kind, Load, Profile, Supply, compress, constant, project, steps
from joulemeter.caveat import Code
from joulemeter.errors import UsageError

RNG = np.random.default_rng(7)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: steps(), "draws nothing"),
        (lambda: steps((0.01, 0.0)), "does not last"),
        (lambda: steps((0.01, -1.0)), "does not last"),
        (lambda: steps((float("nan"), 1.0)), "no number"),
        (lambda: steps((-0.01, 1.0)), "below zero is no load"),
        (lambda: steps((5e4, 1.0)), "50.00 kA is no load"),
        (lambda: steps((0.0, 1.0), kind=Kind.RESISTANCE), "short circuit"),
        (lambda: Profile(durations_s=np.ones(2), values=np.ones(3)), "one duration for each value"),
        (lambda: constant(0.0), "draws nothing"),
        (lambda: Load(profile=steps((0.0, 1.0)), rest_a=0.0, every_s=2.0), "draws nothing"),
        (lambda: Load(profile=steps((0.1, 1.0)), every_s=2.0), "belong together"),
        (lambda: Load(profile=steps((0.1, 1.0)), rest_a=1e-6, every_s=0.5), "is impossible"),
        (lambda: Load(profile=steps((0.1, 1.0)), rest_a=-1e-6, every_s=2.0), "not possible"),
        (lambda: Load(profile=steps((0.1, 1.0)), rest_a=1e-6, every_s=float("nan")), "is impossible"),
        (lambda: Event(label="upload", profile=steps((0.1, 5.0)), every_s=1.0), "upload lasts"),
        (lambda: compress([], 1.0), "one row of samples"),
        (lambda: compress([np.nan], 1.0), "only gaps"),
        (lambda: compress([1.0], 0.0), "not possible"),
        (lambda: compress([-1.0, -2.0], 1.0), "below zero on average"),
        (lambda: compress([1.0], 1.0, kind=Kind.RESISTANCE), "cannot be averaged"),
    ],
)
def test_what_is_no_load_is_refused_by_name(make: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


@given(
    levels=st.lists(st.floats(1e-6, 0.05), min_size=1, max_size=12),
    lengths=st.lists(st.integers(1, 300), min_size=12, max_size=12),
    most=st.integers(4, 40),
)
def test_compressed_waveforms_keep_charge_and_time(levels: list[float], lengths: list[int], most: int) -> None:
    wave = np.concatenate([np.full(n, level) for level, n in zip(levels, lengths, strict=False)])
    wave = wave * (1 + 0.01 * RNG.standard_normal(wave.size))
    few = compress(wave, 1e-5, most=most)
    profile = few.profile
    assert profile.duration_s == pytest.approx(wave.size * 1e-5)
    assert (profile.values * profile.durations_s).sum() == pytest.approx(wave.sum() * 1e-5)
    rebuilt = np.repeat(profile.values, np.round(profile.durations_s / 1e-5).astype(int))
    assert few.value_error == pytest.approx(np.abs(rebuilt - wave).max())
    assert few.charge_error_c == pytest.approx(np.abs(np.cumsum(wave - rebuilt)).max() * 1e-5, abs=1e-15)


def test_steps_are_found_exactly_and_a_lone_peak_survives_any_limit() -> None:
    wave = np.concatenate([np.full(100, 1e-6), np.full(333, 5e-3), [30e-3], np.full(500, 5e-3), np.full(66, 1e-6)])
    few = compress(wave, 1e-3)
    assert few.profile.values.tolist() == pytest.approx([1e-6, 5e-3, 30e-3, 5e-3, 1e-6])
    assert few.profile.durations_s.tolist() == pytest.approx([0.1, 0.333, 0.001, 0.5, 0.066])
    noisy = wave + 2e-3 * RNG.standard_normal(wave.size)
    squeezed = compress(noisy, 1e-3, most=8)
    assert squeezed.profile.values.max() > 0.97 * noisy.max()
    assert (squeezed.profile.values >= 0).all()
    assert len(squeezed.profile.values) < 40


def test_a_compressed_waveform_lives_as_long_as_the_samples() -> None:
    """Rising edges, a plateau with noise, a radio peak: the life of 2,000 samples and of a few steps."""
    t = np.arange(2000) * 1e-4
    wave = 6e-3 * (1 - np.exp(-t / 5e-3)) + 0.1e-3 * RNG.standard_normal(t.size)
    wave[1200:1230] = 18e-3
    few = compress(wave, 1e-4)
    assert len(few.profile.values) < 40
    lives = [
        project(GOOD, Load(profile=profile, rest_a=2e-6, every_s=10.0), Supply(cutoff_v=2.0)).model_life_s
        for profile in (few.profile, Profile(durations_s=np.full(t.size, 1e-4), values=np.maximum(wave, 0)))
    ]
    assert lives[0] == pytest.approx(lives[1], rel=2e-3)


def test_a_gap_is_bridged_and_told() -> None:
    wave = np.full(1000, 2e-3)
    wave[400:500] = np.nan
    few = compress(wave, 1e-3)
    assert few.gap_s == pytest.approx(0.1)
    assert few.profile.values.tolist() == pytest.approx([2e-3])
    (told,) = few.caveats
    assert told.code is Code.BATTERY_GAPS
    assert "100.0 ms without samples (10.00% of it)" in told.text


def test_an_event_adds_its_charge_and_names_its_step() -> None:
    upload = Event(label="upload", profile=steps((10e-3, 0.5, "join"), (20e-3, 0.1, "send")), every_s=3600.0)
    quiet = Load(profile=steps((1e-3, 0.01, "inference")), rest_a=1e-6, every_s=1.0)
    without = project(GOOD, quiet, Supply(cutoff_v=2.0))
    life = project(GOOD, replace(quiet, events=(upload,)), Supply(cutoff_v=2.0))
    assert life.mean_current_a - without.mean_current_a == pytest.approx(7e-3 / 3600, rel=1e-6)
    assert life.sag_label == "upload: send"
    assert life.peak_current_a == pytest.approx(20e-3 + 1e-6)
