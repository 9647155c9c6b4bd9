"""A projected battery life as a picture: the rail against age, and life against the period of inferences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joulemeter.battery.cell import YEAR_S
from joulemeter.battery.whatif import periods
from joulemeter.capture import Basis
from joulemeter.errors import AccessError, UsageError

if TYPE_CHECKING:
    from joulemeter.lifetime import Projection

FORMATS = (".png", ".svg", ".pdf")
DAY_S = 86400.0
# Periods looked at: from as short as the active part allows to a day.
PERIODS = 40


def draw(found: Projection, path: Path) -> None:
    """Write the picture. Raises UsageError for a format that is none, AccessError where it cannot be written."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} is no picture that can be drawn.", f"Choose one of: {', '.join(FORMATS)}.")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2 if found.load.every_s is not None else 1, figsize=(10, 4), squeeze=False)
    try:
        _rail(axes[0][0], found)
        if found.load.every_s is not None:
            _periods(axes[0][1], found)
        simulated = "SIMULATED: " if found.basis is Basis.SIMULATED else ""
        figure.suptitle(f"{simulated}{found.cell.name}, ends by {found.cause()}", fontsize=10)
        figure.tight_layout()
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror}).", "Choose another place.") from error
    finally:
        pyplot.close(figure)


def _rail(axes: Any, found: Projection) -> None:
    curves, life = found.life.curves, found.life
    unit_s, unit = (YEAR_S, "years") if curves.age_s[-1] > 2 * YEAR_S else (DAY_S, "days")
    age = curves.age_s / unit_s
    axes.fill_between(age, curves.rail_min_v, curves.rail_max_v, alpha=0.25, linewidth=0)
    axes.plot(age, curves.rail_max_v, label="highest in a cycle")
    axes.plot(age, curves.rail_min_v, label="lowest in a cycle")
    axes.axhline(life.cutoff_v, linestyle="--", linewidth=1, color="black", label="needed")
    if found.spread.p5_s is not None and found.spread.p95_s is not None:
        axes.axvspan(found.spread.p5_s / unit_s, found.spread.p95_s / unit_s, alpha=0.1, color="grey", linewidth=0)
    axes.set_xlabel(f"age, {unit} (grey: 90 % of cells end there)")
    axes.set_ylabel("rail, V")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _periods(axes: Any, found: Projection) -> None:
    load = found.load
    shortest = max(load.profile.duration_s * 1.001, 1e-3)
    asked = np.geomspace(shortest, max(DAY_S, 10 * load.period_s), PERIODS)
    lives = periods(found.cell, load, found.supply, asked.tolist())
    known = [(every, life.life_s / DAY_S) for every, life in lives if life is not None and life.life_s]
    if known:
        axes.loglog(*zip(*known, strict=True))
    if found.life.life_s:
        axes.plot([load.period_s], [found.life.life_s / DAY_S], "o")
    axes.set_xlabel("one inference each, s")
    axes.set_ylabel("life, days")
    axes.grid(alpha=0.3, which="both")
