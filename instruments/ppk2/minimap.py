"""The overview that Nordic's application keeps in a .ppk2 file: least and greatest current of equal stretches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 10_000
FLOOR_NANOAMPERES = 200.0  # below it the meter cannot measure, and the application draws nothing


class Minimap:
    """Samples per point are the smallest power of two that keeps to MOST_POINTS."""

    def __init__(self, length: int, rate_hz: float) -> None:
        self._fold = 1
        while -(-length // self._fold) > MOST_POINTS:
            self._fold *= 2
        self._rate_hz = rate_hz
        self._count = 0
        points = -(-length // self._fold)
        self._least = np.full(points, np.inf)
        self._greatest = np.full(points, -np.inf)

    def add(self, microamperes: NDArray[np.float32]) -> None:
        """The next samples, shape (n,)."""
        points = (self._count + np.arange(len(microamperes))) // self._fold
        nanoamperes = np.maximum(microamperes.astype(np.float64) * 1e3, FLOOR_NANOAMPERES)
        np.minimum.at(self._least, points, nanoamperes)
        np.maximum.at(self._greatest, points, nanoamperes)
        self._count += len(microamperes)

    def to_json(self) -> dict[str, Any]:
        """As the application stores it; x is the middle of the samples that a point stands for."""
        points = -(-self._count // self._fold)
        first = np.arange(points) * self._fold
        last = np.minimum(first + self._fold, self._count) - 1
        x_us = ((first + last) / 2 * 1e6 / self._rate_hz).tolist()
        return {
            "lastElementFoldCount": self._count - int(first[-1]) if points else 0,
            "data": {
                "length": points,
                "min": [{"x": x, "y": y} for x, y in zip(x_us, self._least[:points].tolist(), strict=True)],
                "max": [{"x": x, "y": y} for x, y in zip(x_us, self._greatest[:points].tolist(), strict=True)],
            },
            "maxNumberOfElements": MOST_POINTS,
            "numberOfTimesToFold": self._fold,
        }
