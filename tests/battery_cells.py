"""The two CR2032 of the published pulse tests, as tests use them.

Both are fits to ratios of lives in Texas Instruments' SWRA349 (brands with the best and the worst result), not
measurements of resistance. Voltage at rest: 3.20 V fresh, a plateau near 2.9 V, 2.7 V near 90 %, 2.0 V empty.
The slow term is fitted to one figure, 3 mA continuous (150 mAh of 235).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from joulemeter.battery import Cell, Curve, Kind, Knee, Limits, Load, Profile, Resistance, SlowTerm

MAH = 3.6
DAY_S = 86400.0
YEAR_S = 365.25 * DAY_S
OCV = Curve(
    x=(0, 0.02, 0.05, 0.10, 0.30, 0.50, 0.70, 0.80, 0.85, 0.90, 0.94, 0.97, 1),
    y=(3.20, 3.08, 2.99, 2.95, 2.93, 2.91, 2.88, 2.84, 2.80, 2.72, 2.60, 2.40, 2.00),
)
SLOW = SlowTerm(c=0.2, k_per_s=0.132 / 3600)


def coin(capacity_mah: float, dk: float, w: float, *, fresh_ohm: float = 10.0, **more: Any) -> Cell:
    figures: dict[str, Any] = {
        "slow": SLOW,
        "rated_a": 0.19e-3,
        "loss_per_year": 0.01,
        "loss_doubling_k": 10.0,
        "shelf_s": 10 * YEAR_S,
        "limits": Limits(continuous_a=3e-3, pulse_a=15e-3),
        "grades": {"capacity": "B", "ocv": "D", "resistance": "D", "slow": "D", "loss": "B", "limits": "C"},
    }
    return Cell(
        name="CR2032",
        chemistry="Li/MnO2",
        capacity_c=capacity_mah * MAH,
        ocv=OCV,
        resistance=Resistance(
            fresh_ohm=fresh_ohm, shape=Knee(dk=dk, w=w), fast_share=0.6, tau1_s=0.4, arrhenius_k=3650.0
        ),
        **(figures | more),
    )


GOOD = coin(235, 0.80, 0.10)
POOR = coin(220, 0.42, 0.05)
# The worked examples were computed without a slow term.
FAST = coin(235, 0.80, 0.10, slow=None)


def ti_load(peak_a: float) -> Load:
    """SWRA349: 8 mA 2 ms, the peak 1 ms, 8 mA 2 ms, 0.1 mA 200 ms, drawn by resistors sized at 2.5 V."""
    currents = (8e-3, peak_a, 8e-3, 0.1e-3)
    return Load(
        profile=Profile(
            durations_s=np.array([2e-3, 1e-3, 2e-3, 0.2]),
            values=2.5 / np.array(currents),
            kind=Kind.RESISTANCE,
            labels=("receive", "transmit", "receive", "sleep"),
        )
    )
