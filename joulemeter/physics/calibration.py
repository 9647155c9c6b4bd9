"""A meter's own gain and offset per range, from a known load: the cheapest accuracy there is.

The meter reads y = gain * x + offset where x is the truth. A resistor with a measured voltage across it, or a better
meter in series, gives x; a run with nothing connected gives x = 0. What the maker states enters the fit as knowledge
from before (offset 0 and gain 1, each with its limit), so that one point tells the gain and says honestly how far an
unknown offset could have moved it, and a zero run or a second current tells the offset.

The tolerance of resistor and voltmeter is common to all points, so it cannot be fitted away: it is added to the gain's
uncertainty afterwards, and so is `stability`, how far the meter moves between two days (JCGM 100, 5.1 and F.1.2.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import (
    Accuracy,
    Block,
    Channel,
    Distribution,
    Header,
    Limit,
    Quantity,
    Stream,
    View,
)
from joulemeter.caveat import Code, note
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.reference import BATCHES, Float, Point

SCHEMA = "joulemeter.calibration/1"

# Eleven runs of one PPK2 on one resistor agreed to ±0.3 % (ppk2lab); days and temperatures differ by no less.
STABILITY = Limit(value=0.003, distribution=Distribution.NORMAL)
# A gain further from 1 than this many of the maker's own uncertainties is a wiring mistake.
IMPLAUSIBLE = 4.0
IMPLAUSIBLE_LEAST = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """true = (reading - offset) / gain for one channel in one range; standard uncertainties, None: as the maker says.

    `dof` are the effective degrees of freedom, None for infinitely many. Gain and offset of one fit pull against each
    other; this is left out, which makes the uncertainty of a corrected reading too large rather than too small.
    """

    channel: str
    range: int | None
    gain: float = 1.0
    u_gain: float | None = None
    offset: float = 0.0
    u_offset: float | None = None
    dof: float | None = None
    points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All corrections of one meter. `serial` names it; `constants` is its own calibration when this one was made.

    `created` is UTC in ISO 8601. `reference` says in words what the truth came from.
    """

    instrument: str
    model: str
    serial: str
    created: str
    reference: str
    simulated: bool
    corrections: tuple[Correction, ...]
    points: tuple[Point, ...]
    firmware: str | None = None
    constants: dict[str, Any] = field(default_factory=dict)
    stability: Limit = STABILITY
    schema: str = SCHEMA


def constants_of(header: Header) -> dict[str, Any]:
    """What of a header must not change between calibration and use: the meter's own constants."""
    own = header.parameters.get("calibration")
    return {"calibration": own} if own is not None else {}


# -- the fit ----------------------------------------------------------------------------------------------------------


def fit(points: Sequence[Point], header: Header, stability: Limit = STABILITY) -> tuple[Correction, ...]:
    """Gain and offset of each channel and range that has points.

    Weighted least squares with the maker's statement as prior; a scatter larger than the points' own uncertainty
    explains widens the result (Birge, Phys. Rev. 40 (1932) 207). Raises UsageError where the points cannot tell gain
    from offset and the maker states no offset, DataError for a gain that can only be a wiring mistake.
    """
    accuracy = {channel.name: channel.accuracy for channel in header.channels}
    groups: dict[tuple[str, int | None], list[Point]] = {}
    for point in points:
        groups.setdefault((point.reading.channel, point.reading.range), []).append(point)
    return tuple(
        _fit_range(name, range_, group, _row(accuracy.get(name, ()), range_), stability)
        for (name, range_), group in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or 0))
    )


def _row(rows: Iterable[Accuracy], range_: int | None) -> Accuracy | None:
    by_range = {row.range: row for row in rows}
    return by_range.get(range_, by_range.get(None))


def _fit_range(
    channel: str, range_: int | None, points: Sequence[Point], row: Accuracy | None, stability: Limit
) -> Correction:
    where = channel if range_ is None else f"{channel}, range {range_}"
    truth = np.array([point.truth for point in points])
    read = np.array([point.reading.mean for point in points])
    # A reading without any noise is quantised; nothing is then known below a rounding error.
    floor = 1e-9 * float(np.abs(read).max()) + 1e-18
    u = np.array([point.reading.u for point in points]) + floor
    loaded = bool(truth.any())
    if row is None and len(set(truth.tolist())) < 2:
        raise UsageError(
            f"One current tells gain and offset of {where} only together, and its maker states neither.",
            "Add a zero run (--zero --add) or another voltage (--supply).",
        )
    design, wanted, weight = [np.column_stack([truth, np.ones_like(truth)])], [read], [1 / u]
    if row is not None:
        design.append(np.eye(2))
        wanted.append(np.array([1.0, 0.0]))
        weight.append(1 / np.array([max(row.gain.standard, 1e-9), max(row.offset.standard, floor)]))
    a, b, w = np.concatenate(design), np.concatenate(wanted), np.concatenate(weight)
    # Columns of like size, so that amperes and ratios meet on equal terms.
    scale = np.array([1.0, float(np.abs(truth).max()) or float(u.max())])
    covariance = np.linalg.inv((a * scale * w[:, None]).T @ (a * scale * w[:, None]))
    gain, offset = covariance @ ((a * scale).T @ (w**2 * b)) * scale
    spare = len(b) - 2
    chi2 = float((((b - a @ [gain, offset]) * w) ** 2).sum())
    # The priors are no measurements: only as many points as there are beyond the two unknowns can show scatter.
    birge = max(1.0, chi2 / spare) if len(points) > 2 else 1.0
    u_fit, u_offset = np.sqrt(birge * np.diag(covariance)) * scale
    limit = IMPLAUSIBLE * (row.gain.standard if row is not None else math.inf)
    if loaded and abs(gain - 1) > max(limit, IMPLAUSIBLE_LEAST):
        raise DataError(
            f"{where} reads {gain:.4g} times what the load should draw, far outside what the maker states.",
            "Check the resistor, the voltage across it, and that nothing else is connected.",
        )
    zero = max(point.u_zero for point in points)
    shared = math.hypot(max(point.u_scale for point in points), zero / scale[1])
    u_gain = math.sqrt(u_fit**2 + (gain * shared) ** 2 + (gain * stability.standard) ** 2)
    dof = len(points) - 2 if len(points) > 2 else BATCHES - 1
    return Correction(
        channel=channel,
        range=range_,
        gain=float(gain) if loaded else 1.0,
        u_gain=u_gain if loaded else None,
        offset=float(offset),
        u_offset=math.hypot(u_offset, gain * zero),
        # Welch-Satterthwaite: only the fit has few degrees of freedom.
        dof=float(min(dof * (u_gain / u_fit) ** 4, 1e6)) if loaded and u_fit else float(dof),
        points=len(points),
    )


# -- its use ----------------------------------------------------------------------------------------------------------


def check(header: Header, calibration: Calibration) -> None:
    """Raises UsageError when a calibration is not this meter's, or the meter has changed since."""
    if header.simulated != calibration.simulated:
        kinds = ("real", "simulated")
        raise UsageError(
            f"A calibration of a {kinds[calibration.simulated]} meter does not fit a {kinds[header.simulated]} one.",
            "Calibrate the meter that you measure with.",
        )
    if header.instrument != calibration.instrument:
        raise UsageError(f"A calibration of {calibration.model} does not fit {header.model}.")
    if header.serial is not None and header.serial != calibration.serial:
        raise UsageError(
            f"This calibration is of number {calibration.serial}; the meter is number {header.serial}.",
            "Calibrate the meter that you measure with.",
        )
    if constants_of(header) != calibration.constants:
        raise UsageError(
            f"The constants inside {header.model} {calibration.serial} have changed since its calibration of "
            f"{calibration.created[:10]}.",
            "Calibrate it again.",
        )


def apply(header: Header, calibration: Calibration) -> Header:
    """The header with the fitted uncertainties in its accuracy table, and a note that says so.

    The samples must be corrected too: `correct`. Raises UsageError when the calibration is not this meter's.
    """
    check(header, calibration)
    source = f"calibration of {calibration.created[:10]} against {calibration.reference}"
    channels = tuple(
        replace(channel, accuracy=_calibrated(channel, calibration.corrections, source)) for channel in header.channels
    )
    ranges = sorted({str(correction.range) for correction in calibration.corrections if correction.range is not None})
    where = f" in range {', '.join(ranges)}" if ranges else ""
    gains = [correction for correction in calibration.corrections if correction.u_gain is not None]
    spread = ", ".join(f"{c.gain:.4f} ± {c.u_gain:.2%}" for c in gains)
    remark = note(
        Code.CALIBRATED,
        f"Samples{where} are corrected by the {source}"
        f"{f' (gain {spread})' if gains else ''}; its uncertainty replaces the maker's. Other ranges are as the maker "
        "states. Calibrate again after a year or a change of temperature.",
        created=calibration.created,
        serial=calibration.serial,
        corrections=len(calibration.corrections),
    )
    return replace(header, channels=channels, caveats=(*header.caveats, remark))


def _calibrated(channel: Channel, corrections: Sequence[Correction], source: str) -> tuple[Accuracy, ...]:
    rows = {row.range: row for row in channel.accuracy}
    for correction in corrections:
        if correction.channel != channel.name:
            continue
        old = rows.get(correction.range, rows.get(None))
        gain = _limit(correction.u_gain, correction.dof) or (old.gain if old else None)
        offset = _limit(correction.u_offset, correction.dof) or (old.offset if old else None)
        if gain is None or offset is None:
            continue  # a zero run of a meter whose gain nobody states: still not known
        rows[correction.range] = Accuracy(
            range=correction.range, gain=gain, offset=offset, source=source, verified=True
        )
    return tuple(rows.values())


def _limit(u: float | None, dof: float | None) -> Limit | None:
    return None if u is None else Limit(value=u, distribution=Distribution.NORMAL, dof=dof)


def correct(blocks: Iterable[Block], header: Header, corrections: Sequence[Correction]) -> Iterator[Block]:
    """The same blocks with (reading - offset) / gain in every corrected channel; other arrays are shared."""
    ranges = header.channel(Quantity.RANGE)
    tables = {
        name: {c.range: (c.gain, c.offset) for c in corrections if c.channel == name}
        for name in {correction.channel for correction in corrections}
    }
    for block in blocks:
        keys = None if ranges is None else block.data[ranges.name]
        changed = {
            name: _correct(np.asarray(block.data[name], dtype=np.float64), keys, table)
            for name, table in tables.items()
            if name in block.data
        }
        yield replace(block, data={**block.data, **changed})


def calibrated(stream: Stream, calibration: Calibration) -> View:
    """The stream with corrected samples and the fitted uncertainty in its header.

    Raises UsageError when the calibration is not this meter's.
    """
    return View(
        stream=stream,
        own_header=apply(stream.header, calibration),
        change=lambda blocks: correct(blocks, stream.header, calibration.corrections),
    )


def _correct(values: Float, ranges: NDArray[Any] | None, table: Mapping[int | None, tuple[float, float]]) -> Float:
    everywhere = table.get(None, (1.0, 0.0))
    if ranges is None:
        return (values - everywhere[1]) / everywhere[0]
    size = int(ranges.max(initial=0)) + 1
    gain, offset = np.array([table.get(k, everywhere) for k in range(size)]).T
    corrected: Float = (values - offset[ranges]) / gain[ranges]
    return corrected
