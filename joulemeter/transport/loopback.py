"""A simulated device in the same process, without any wire in between."""

from __future__ import annotations

import time

from joulemeter.errors import IncompleteError
from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError


class LoopbackLink:
    """Talks to a Device directly. Unpaced, device time runs only as far as it is read: as fast as possible."""

    def __init__(self, device: Device, *, paced: bool = False, batch_s: float = 0.02) -> None:
        self.address = "simulated"
        self._device = device
        self._paced = paced
        self._batch_s = batch_s
        self._now_s = 0.0
        self._started = time.monotonic()

    def read(self, timeout_s: float) -> bytes:
        try:
            if self._paced:
                time.sleep(min(timeout_s, self._batch_s))
                return self._device.transmit(time.monotonic() - self._started)
            self._now_s += min(self._batch_s, timeout_s)
            return self._device.transmit(self._now_s)
        except UnpluggedError as error:
            raise IncompleteError("The simulated device was unplugged.", "What had arrived is kept.") from error

    def write(self, data: bytes) -> None:
        try:
            self._device.receive(data)
        except UnpluggedError as error:
            raise IncompleteError("The simulated device was unplugged.", "What had arrived is kept.") from error

    def close(self) -> None:
        """Nothing to release."""
