"""Recordings of meters that are asked for each reading, as files of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import metered

from joulemeter.capture import Kind, Quantity, Recording
from joulemeter.errors import UsageError
from joulemeter.export import export


def polled() -> Recording:
    times = np.array([-100_000_000, 170_000_000, 410_000_000, 980_000_000], dtype=np.int64)
    power = np.array([1.0, 2.0, 3.0, 4.0])
    return Recording(
        name="slow", streams=(metered({Quantity.POWER: power}, Kind.INSTANT, 4.0, times_ns=times, refresh_s=0.25),)
    )


def test_readings_keep_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "slow.csv"
    assert export(polled(), path) == 4
    table = pd.read_csv(path)
    assert table["time_s"].tolist() == pytest.approx([-0.1, 0.17, 0.41, 0.98])
    assert table["power_w"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_format_of_even_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="evenly spaced"):
        export(polled(), tmp_path / "slow.ppk2")
