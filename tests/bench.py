"""A simulated device on a link with a clock of its own: minutes on the board pass in milliseconds."""

from __future__ import annotations

from joulemeter.errors import IncompleteError
from joulemeter.instrument import Device

STEP_S = 0.001
# So that no stamp is near zero.
START_NS = 5_000_000_000


class BenchLink:
    """Time goes on as far as it is waited for. `unplug_s`: from then on every read fails."""

    def __init__(self, device: Device, unplug_s: float = float("inf")) -> None:
        self.address = "bench"
        self.device = device
        self.now_s = 0.0
        self.unplug_s = unplug_s
        self.sent = bytearray()
        self.closed = 0

    def now_ns(self) -> int:
        return START_NS + round(self.now_s * 1e9)

    def open(self, address: str, baud: int) -> BenchLink:
        del address, baud
        return self

    def read(self, timeout_s: float) -> bytes:
        self.now_s += min(timeout_s, STEP_S)
        if self.now_s > self.unplug_s:
            raise IncompleteError("The connection was lost while reading.", "Check the cable.")
        return self.device.transmit(self.now_s)

    def write(self, data: bytes) -> None:
        self.sent += data
        self.device.receive(data)

    def close(self) -> None:
        self.closed += 1


def device_s(stamp_ns: int) -> float:
    """The board's time of a stamp."""
    return (stamp_ns - START_NS) * 1e-9
