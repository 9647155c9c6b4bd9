"""Readings of a waveform: which of its pieces could be the windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from joulemeter.physics import changepoints
from joulemeter.physics.changepoints import Trace
from joulemeter.physics.evidence import Evidence, Hint, Reading, repeatability

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

# How finely the recording is looked at, in spans. A burst of many inferences is one window as long as a coarse look
# finds a pattern; what repeats faster shows only in a finer one.
LOOKS = (240, 800, 2400)
# Levels are told apart at this many of the widest gaps between them.
GAPS = 5
# Between two windows of a hole shorter than this share of them there was no pause: a dip within one window.
DIP_SHARE = 0.12
# Runs whose duration is further from the usual than this factor are misfits.
MISFIT = 1.5
# Steps smaller than this share of the range of all levels are doubted.
SWING_SHARE = 0.3
# A reading that begins or ends in a window is not framed by anything else.
CUT = 0.8
REPEATS = {1: 0.4, 2: 0.8, 3: 0.95}
DIRECTION = {"above": 1.0, "band": 0.9, "below": 0.9, "ripple": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """Pieces of one look: borders in spans that hold samples, (k + 1,); level, ripple and length of each, (k,)."""

    trace: Trace
    held: Int
    borders: Int
    level: Float
    ripple: Float
    scatter: Float
    ripple_scatter: float

    @property
    def length(self) -> Int:
        return np.diff(self.borders)


def readings(trace: Trace, hint: Hint) -> list[Reading]:
    """Every reading of the waveform worth telling, best first."""
    found: list[Reading] = []
    for look, pieces in enumerate(_looks(trace)):
        for kind, values, chosen in _choices(pieces):
            for closing in (0.0, DIP_SHARE):
                reading = _judged(pieces, kind, values, chosen, closing, look, hint)
                if reading is not None:
                    found.append(reading)
    found.sort(key=lambda reading: -reading.rank)
    return found


def _looks(trace: Trace) -> Iterator[_Pieces]:
    factors = sorted({max(1, round(len(trace.mean) / look)) for look in LOOKS}, reverse=True)
    for factor in factors:
        coarse = trace.coarsened(factor)
        held = np.flatnonzero(coarse.count > 0)
        mean = coarse.mean[held]
        ripple = _ripple(coarse, held)
        borders = changepoints.partition(mean, ripple, 0.5 * changepoints.noise_of(mean))
        yield _pieces(coarse, held, mean, ripple, _without_transitions(mean, borders))
    held = np.flatnonzero(trace.count > 0)
    mean = trace.mean[held]
    borders = changepoints.crossings(mean)
    if len(borders) > 2:
        yield _pieces(trace, held, mean, _ripple(trace, held), borders)


def _ripple(trace: Trace, held: Int) -> Float:
    """Logarithm of the ripple within each span; a thousandth of the level counts as none."""
    mean = trace.mean[held]
    ripple: Float = np.log(np.sqrt(trace.variance[held]) + 1e-3 * float(np.median(np.abs(mean))) + 1e-300)
    return ripple


def _without_transitions(mean: Float, borders: Int, most: int = 3) -> Int:
    """Borders without the short pieces that only hold a step: those between the levels of longer neighbours."""
    kept = borders.tolist()
    k = 1
    while k < len(kept) - 2:
        low, high = kept[k], kept[k + 1]
        before, after = kept[k - 1], kept[k + 2]
        levels = (float(np.median(mean[before:low])), float(np.median(mean[high:after])))
        here = float(mean[low:high].mean())
        longer = min(low - before, after - high) > high - low
        step = levels[1] - levels[0]
        share = (levels[1] - here) / step if step else 0.5
        if high - low <= most and longer and -0.1 <= share <= 1.1:
            # The step is where the mean of the piece says it is.
            kept[k : k + 2] = [round(low + min(max(share, 0.0), 1.0) * (high - low))]
        else:
            k += 1
    return np.array(kept, dtype=np.int64)


def _pieces(trace: Trace, held: Int, mean: Float, ripple: Float, borders: Int) -> _Pieces:
    starts, length = borders[:-1], np.diff(borders)
    # The outer spans of a piece hold part of a step.
    inner, count = starts + (length > 4), length - 2 * (length > 4)
    level, ripples = (_means(values, inner, count) for values in (mean, ripple))
    centred = mean - np.repeat(level, length)
    scatter = np.sqrt(np.maximum(_means(centred * centred, inner, count), 0.0))
    return _Pieces(
        trace=trace,
        held=held,
        borders=borders,
        level=level,
        ripple=ripples,
        scatter=scatter,
        ripple_scatter=max(changepoints.noise_of(ripple), 0.02),
    )


def _means(values: Float, starts: Int, count: Int) -> Float:
    total = np.concatenate([[0.0], np.cumsum(values - values.mean())])
    means: Float = (total[starts + count] - total[starts]) / count + values.mean()
    return means


def _choices(pieces: _Pieces) -> Iterator[tuple[str, Float, Bool]]:
    """Kind of each reading, the values it goes by, (k,), and which pieces are in its windows: those of adjacent values.

    The values are the level, the level above the neighbours (which a drifting baseline does not move), and the ripple.
    """
    level = pieces.level
    around = np.concatenate([level[1:2], (level[:-2] + level[2:]) / 2, level[-2:-1]]) if len(level) > 2 else level
    for values, gaps, kinds in (
        (level, GAPS, ("below", "band", "above")),
        (level - around, 2, ("below", "", "above")),
        (pieces.ripple, 2, ("ripple", "", "ripple")),
    ):
        ordered = np.unique(values)
        steps = np.diff(ordered)
        widest = np.sort(np.argsort(steps)[::-1][:gaps])
        borders = [-np.inf, *(ordered[widest] + steps[widest] / 2).tolist(), np.inf]
        for low, high in combinations(range(len(borders)), 2):
            kind = kinds[0 if low == 0 else 2 if high == len(borders) - 1 else 1]
            if kind and (low, high) != (0, len(borders) - 1):
                yield kind, values, (values > borders[low]) & (values <= borders[high])


def _runs(chosen: Bool) -> tuple[Int, Int]:
    """First and one past the last piece of each run of chosen ones."""
    change = np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))
    return np.flatnonzero(change == 1), np.flatnonzero(change == -1)


def _closed(pieces: _Pieces, chosen: Bool, share: float) -> Bool:
    """With dips between long neighbours taken into the windows."""
    first, after = _runs(chosen)
    if len(first) < 2:
        return chosen
    start, stop = pieces.borders[first], pieces.borders[after]
    limit = share * float(np.max(stop - start))
    closed = chosen.copy()
    for k in np.flatnonzero(start[1:] - stop[:-1] < limit):
        closed[after[k] : first[k + 1]] = True
    return closed


def _judged(
    pieces: _Pieces, kind: str, values: Float, chosen: Bool, closing: float, look: int, hint: Hint
) -> Reading | None:
    if closing:
        closed = _closed(pieces, chosen, closing)
        if (closed == chosen).all():
            return None
        chosen = closed
    first, after = _runs(chosen)
    inside = (first > 0) & (after < len(chosen))
    ends = int(np.sum(~inside))
    first, after = first[inside], after[inside]
    if not len(first):
        return None
    start, stop = pieces.borders[first], pieces.borders[after]
    duration = stop - start
    seconds = duration.astype(np.float64)
    usual = _weighted_median(seconds, seconds)
    fits = np.abs(np.log(seconds / usual)) <= np.log(MISFIT) + 1.5 / usual
    misfits = int(np.sum(~fits))
    first, after, start, stop, seconds = (each[fits] for each in (first, after, start, stop, seconds))
    count = len(first)
    weight = pieces.length.astype(np.float64)
    levels = _per_run(pieces.level, weight, first, after)
    around = (pieces.level[first - 1], pieces.level[after])
    steps = [levels - side for side in around]
    rise = float(np.median(np.concatenate(steps)))
    ripples = _per_run(pieces.ripple, weight, first, after)
    uneven = _per_run((pieces.ripple - _spread(ripples, first, after, pieces.ripple)) ** 2, weight, first, after)
    if kind == "ripple":
        gaps = [ripples - side for side in (pieces.ripple[first - 1], pieces.ripple[after])]
        contrast = float(np.median(np.abs(np.concatenate(gaps))))
        noise = pieces.ripple_scatter
        between = float(np.std(ripples))
        inner = uneven
    else:
        contrast = float(np.min([np.median(np.abs(step)) for step in steps]))
        noise = float(
            np.median(np.concatenate([pieces.scatter[first], pieces.scatter[first - 1], pieces.scatter[after]]))
        )
        between = float(np.std(_per_run(values, weight, first, after)))
        inner = _per_run((pieces.level - _spread(levels, first, after, pieces.level)) ** 2, weight, first, after)
        signs = {float(np.sign(np.median(step))) for step in steps}
        kind = {1.0: "above", -1.0: "below"}[signs.pop()] if len(signs) == 1 and 0.0 not in signs else "band"
    if contrast <= 0:
        return None
    swing = 0.0 if kind == "ripple" else _swing(pieces)
    likeness = between / contrast
    clear = contrast / max(noise, 1e-6 * contrast) * min(usual, 16.0) ** 0.5
    low, high = sorted((abs(float(np.median(levels))), abs(float(np.median(np.concatenate(around))))))
    direction = DIRECTION[kind] * ((low / high) ** 0.5 if kind == "below" and high else 1.0)
    span = pieces.trace.size
    agreed = 1.0
    if hint.direction is not None:
        agreed *= 1.0 if (rise > 0) == (hint.direction == "above") else 0.1
        direction = 1.0
    if hint.count is not None:
        agreed *= 1.0 if count == hint.count else 0.2
    spans = np.concatenate([pieces.held, [pieces.held[-1] + 1]]) * span
    return Reading(
        kind=kind,
        start=spans[start],
        stop=np.minimum(spans[np.maximum(stop - 1, 0)] + span, pieces.trace.length),
        look=look,
        span=span,
        evidence=Evidence(
            repeats=1.0 if hint.count == count else REPEATS.get(count, 1.0),
            level=1 / (1 + (likeness / 0.2) ** 2) / (1 + float(np.var(ripples))),
            duration=repeatability(seconds, 0.6 / usual),
            contrast=1 - float(np.exp(-(clear**2) / 32)),
            whole=1 / (1 + 4 * float(np.median(inner)) / contrast**2) / (1 + 0.5 * float(np.median(uneven))),
            complete=CUT**ends * count / (count + misfits),
            apart=1 - float(np.exp(-((_apart(pieces, values, chosen, usual) / contrast / 0.1) ** 2))),
            swing=min(1.0, contrast / (SWING_SHARE * swing)) ** 0.5 if swing > 0 else 1.0,
            direction=direction,
            hint=agreed,
        ),
    )


def _swing(pieces: _Pieces) -> float:
    """The range of levels, without those that last less than a fiftieth of the recording."""
    order = np.argsort(pieces.level)
    total = np.cumsum(pieces.length[order])
    low, high = np.searchsorted(total, [0.02 * total[-1], 0.98 * total[-1]])
    return float(pieces.level[order][high] - pieces.level[order][low])


def _apart(pieces: _Pieces, values: Float, chosen: Bool, usual: float) -> float:
    """Distance between the levels of pieces inside and outside the windows; short pieces are steps and do not count."""
    long = pieces.length > min(3.0, 0.3 * usual)
    long[[0, -1]] = True
    inside, outside = np.sort(values[chosen & long]), np.sort(values[~chosen & long])
    if not len(inside) or not len(outside):
        return float("inf")
    place = np.searchsorted(outside, inside)
    above = outside[np.minimum(place, len(outside) - 1)]
    below = outside[np.maximum(place - 1, 0)]
    return float(np.minimum(np.abs(above - inside), np.abs(inside - below)).min())


def _weighted_median(values: Float, weight: Float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _per_run(values: Float, weight: Float, first: Int, after: Int) -> Float:
    """Weighted mean of the pieces of each run."""
    total = np.concatenate([[0.0], np.cumsum(values * weight)])
    length = np.concatenate([[0.0], np.cumsum(weight)])
    means: Float = (total[after] - total[first]) / (length[after] - length[first])
    return means


def _spread(per_run: Float, first: Int, after: Int, like: Float) -> Float:
    """Each run's value at each of its pieces, (k,); elsewhere the piece's own."""
    spread = like.copy()
    for k in range(len(first)):
        spread[first[k] : after[k]] = per_run[k]
    return spread
