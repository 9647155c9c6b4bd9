"""The sync code's place in a power trace, to a fraction of a sample: least squares (see synccode)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.physics.codesearch import Float, Group, Place, Trace, binned, responses

# Bins of a group, and the most rounds a fit takes.
FINE_BINS = 2048
ROUNDS = 25
# Time constants tried at once, and how often the grid closes in on the likely ones.
TAUS = 9
ZOOMS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Host time `host_s` at stream time `stream_s`, where offset and slope do not depend on each other."""

    host_s: float
    stream_s: float
    u_s: float
    slope: float
    u_slope: float | None
    tau_s: float


@dataclass(frozen=True, slots=True)
class _Fit:
    tau_s: float
    host_s: float
    slope: float
    squares: float
    table: Float
    residual: Float


class Model:
    """Gauss-Newton for offset and slope, everything else linear; repeated for each tau."""

    def __init__(
        self,
        trace: Trace,
        length: int,
        rate_hz: float,
        groups: Sequence[Group],
        place: Place,
        chip_s: float,
        early_s: float,
    ) -> None:
        self._groups = groups
        self._parts: list[tuple[Float, Float, NDArray[np.bool_]]] = []
        self._edge: list[NDArray[np.int64]] = []
        self.borders = sum(len(group.edges_s) for group in groups)
        widest = max(group.stop_s - group.start_s for group in groups) * rate_hz
        width = max(1, math.ceil(widest / FINE_BINS))
        begins = 0
        for group, begin_s in zip(groups, place.begins_s, strict=True):
            # What lies outside the group is not known; the place is known to a bin of the search.
            lead = chip_s / 2
            start = max(math.ceil((begin_s + lead) * rate_hz), 0)
            stop = min(int((begin_s + group.stop_s - group.start_s - lead) * rate_hz), length)
            power = binned(trace, start, stop, width)
            borders = (start + np.arange(len(power) + 1) * width) / rate_hz - early_s
            self._parts.append((borders, power, np.isfinite(power)))
            middles = (borders[1:] + borders[:-1]) / 2 - begin_s + group.start_s
            halves = (group.edges_s[1:] + group.edges_s[:-1]) / 2
            self._edge.append(np.searchsorted(halves, middles) + begins)
            begins += len(group.edges_s)
        self._good = np.concatenate([good for _, _, good in self._parts])
        self._power = np.concatenate([power for _, power, _ in self._parts])[self._good]
        self._group = np.repeat(np.arange(len(groups)), [len(good) for _, _, good in self._parts])[self._good]
        self._cluster = np.concatenate(self._edge)[self._good]
        self._middle_s = float(np.mean([borders.mean() for borders, _, _ in self._parts]))
        hosts = np.array([group.start_s for group in groups])
        streams = np.array(place.begins_s)
        self._slope = float(np.polyfit(streams, hosts - streams, 1)[0]) if len(groups) > 1 else 0.0
        self._host_s = float(np.mean(hosts - streams)) + self._middle_s
        # A capacitor that outlasts a chip would leave nothing of the code.
        self._longest_s = chip_s
        self._bin_s = width / rate_hz

    def _design(self, host_s: float, slope: float, tau_s: float) -> tuple[list[Float], list[Float], list[Float]]:
        """Per group: the model of a sample, and its derivatives by offset and slope."""
        models, by_host, by_slope = [], [], []
        for group, (borders, _, _) in zip(self._groups, self._parts, strict=True):
            x = borders - self._middle_s
            integral, response = responses(host_s + (1 + slope) * x, group.edges_s, tau_s)
            span = np.diff(x) * (1 + slope)
            models.append(np.diff(integral) / span)
            by_host.append(np.diff(response) / span)
            by_slope.append(np.diff(response * x) / span)
        return models, by_host, by_slope

    def _columns(
        self, host_s: float, slope: float, tau_s: float, drift: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, 4 per group) the model of a sample and a parabola per group; (n, 1 or 2) its derivatives by offset and
        slope at a level of one, to be multiplied by the group's level."""
        models, by_host, by_slope = self._design(host_s, slope, tau_s)
        linear = np.zeros((len(self._good), 4 * len(models)))
        moving = np.zeros((len(self._good), 1 + drift))
        begins = 0
        for k, model in enumerate(models):
            rows = slice(begins, begins + len(model))
            u = np.linspace(-1, 1, len(model))
            linear[rows, 4 * k : 4 * k + 4] = np.column_stack([model, np.ones_like(u), u, u * u])
            moving[rows] = np.column_stack([by_host[k], by_slope[k]])[:, : 1 + drift]
            begins += len(model)
        return linear[self._good], moving[self._good]

    def _at(self, tau_s: float, host_s: float, slope: float, drift: bool) -> tuple[_Fit, Float]:
        """The best levels and parabolas there, and the step in offset and slope that promises to be better."""
        linear, moving = self._columns(host_s, slope, tau_s, drift)
        found = _least_squares(linear, self._power)
        residual = self._power - linear @ found
        table = np.column_stack([linear, moving * found[0::4][self._group][:, None]])
        step = np.zeros(2)
        step[: 1 + drift] = _least_squares(table, residual)[linear.shape[1] :]
        return _Fit(tau_s, host_s, slope, float(residual @ residual), table, residual), step

    def _fit(self, tau_s: float, host_s: float, slope: float, drift: bool) -> _Fit:
        """Offset and slope at one time constant."""
        best, step = self._at(tau_s, host_s, slope, drift)
        for _ in range(ROUNDS):
            tried, following = self._at(tau_s, best.host_s + float(step[0]), best.slope + float(step[1]), drift)
            gain = best.squares - tried.squares
            if gain > 0:
                best, step = tried, following
                if gain < 1e-3 * best.squares / len(best.residual):
                    break
            else:
                step = step / 3
                if abs(step[0]) < 1e-4 * self._bin_s:
                    break
        return best

    def solve(self, *, drift: bool) -> Solution:
        """The mean over the time constants that explain the trace, weighed by likelihood.

        The noise of that likelihood is the scatter between borders. The grid closes in until the likely values are
        resolved, so the prior is uniform over what the first grids leave.
        """
        taus = np.concatenate([[0.0], np.geomspace(self._longest_s / 1000, self._longest_s, TAUS)])
        at = (self._host_s, self._slope if drift else 0.0)
        for _ in range(ZOOMS):
            # From the smoothest on: without a capacitor a border only shows in the bin that it lies in, and the fit
            # has to begin close by. What it lags by, tau, is the first guess of how far the next one lies.
            fits: list[_Fit] = []
            for tau_s in taus[::-1].tolist():
                lag_s = fits[-1].tau_s - tau_s if fits else 0.0
                fits.append(self._fit(tau_s, at[0] - lag_s, at[1], drift))
                at = (fits[-1].host_s, fits[-1].slope)
            fits.reverse()
            best = min(fits, key=lambda fit: fit.squares)
            covariance, noise = self._covariance(best.table, best.residual, 1 + drift)
            weights = np.exp([-(fit.squares - best.squares) / (2 * noise) for fit in fits])
            likely = np.flatnonzero(weights > 1e-3)
            low, high = max(likely[0] - 1, 0), min(likely[-1] + 1, len(taus) - 1)
            if len(taus) == TAUS and len(likely) >= TAUS // 2:
                break
            taus = np.linspace(taus[low], taus[high], TAUS)
            at = (fits[high].host_s, fits[high].slope)
        weights /= weights.sum()
        host_s = float(weights @ [fit.host_s for fit in fits])
        slope = float(weights @ [fit.slope for fit in fits])
        u_tau_s2 = float(weights @ (np.array([fit.host_s for fit in fits]) - host_s) ** 2)
        moved = 0.0
        u_slope = None
        if drift:
            u_slope = math.sqrt(covariance[1, 1])
            moved = -float(covariance[0, 1] / covariance[1, 1])
            own = float(covariance[0, 0]) - moved**2 * u_slope**2
        else:
            own = float(covariance[0, 0])
        return Solution(
            host_s=host_s + (1 + slope) * moved,
            stream_s=self._middle_s + moved,
            u_s=math.sqrt(own + u_tau_s2),
            slope=slope,
            u_slope=u_slope,
            tau_s=float(weights @ [fit.tau_s for fit in fits]),
        )

    def _covariance(self, table: Float, residual: Float, wanted: int) -> tuple[Float, float]:
        """Of the last `wanted` parameters, and the variance per sample that explains it.

        Residuals of real work are neither white nor equal, so the scatter of whole borders is taken where it is
        larger than that of single samples (cluster-robust covariance; Liang and Zeger, Biometrika 73, 1986).
        """
        spare = len(residual) - table.shape[1]
        clusters = len(np.unique(self._cluster))
        if spare <= 0 or clusters <= 4:
            raise DataError(
                "Too much of the sync code is missing from the power trace to place it.", "Record it again."
            )
        noise = float(residual @ residual) / spare
        scale = _lengths(table)
        even = table / scale
        inverse = np.linalg.pinv(even.T @ even) / np.outer(scale, scale)
        plain = noise * inverse[-wanted:, -wanted:]
        scores = np.zeros((int(self._cluster.max()) + 1, table.shape[1]))
        np.add.at(scores, self._cluster, table * residual[:, None])
        # Offset, slope, and per group a level were fitted from the borders.
        fitted = wanted + len(self._groups)
        spread = (inverse @ scores.T)[-wanted:]
        free = max(clusters - fitted, 3)
        robust = spread @ spread.T * clusters / free
        larger = max(1.0, *(robust[k, k] / plain[k, k] for k in range(wanted) if plain[k, k] > 0))
        # Few borders tell the scatter badly: the variance of Student's t.
        larger *= free / (free - 2)
        return larger * plain, larger * noise


def _least_squares(table: Float, wanted: Float) -> Float:
    """By the normal equations of columns of unit length: a long table of a few columns."""
    scale = _lengths(table)
    even = table / scale
    found: Float = np.linalg.lstsq(even.T @ even, even.T @ wanted, rcond=None)[0] / scale
    return found


def _lengths(table: Float) -> Float:
    """Of the columns: seconds of drift and microamperes of level differ by so much that nothing else would count."""
    lengths: Float = np.sqrt(np.einsum("ij,ij->j", table, table))
    lengths[lengths == 0] = 1.0
    return lengths
