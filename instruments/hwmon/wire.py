"""What the files of sensors hold, and what a round of them is worth. The lines they come in: joulemeter.boardfiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from joulemeter.boardfiles.wire import FORMAT, Round
from joulemeter.capture import Header

__all__ = ["FORMAT", "PER_SI", "Sums"]

# sysfs holds integers: uW, mA, mV (Linux, Documentation/hwmon/sysfs-interface.rst).
PER_SI = {"power": 1e6, "curr": 1e3, "in": 1e3}


class Sums:
    """Each channel is a sum of products of files."""

    def __init__(self, header: Header) -> None:
        self._per_si: list[float] = header.parameters["per_si"]
        sums: dict[str, list[list[int]]] = header.parameters["channels"]
        self._sums = [sums[channel.name] for channel in header.channels]

    def __call__(self, found: Round) -> Sequence[float] | None:
        numbers = [read.number for read in found.reads]
        files = [number / per_si for number, per_si in zip(numbers, self._per_si, strict=True) if number is not None]
        if len(files) < len(numbers):
            return None
        return [sum(math.prod(files[k] for k in product) for product in products) for products in self._sums]
