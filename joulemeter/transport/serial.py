"""Serial ports through pyserial."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from joulemeter.errors import AccessError, IncompleteError, JouleMeterError, NotFoundError


class SerialLink:
    """A port such as /dev/ttyACM0, COM3 or a pseudo-terminal."""

    def __init__(self, address: str, baud: int = 115200) -> None:
        """Raises NotFoundError, AccessError."""
        import serial

        self.address = address
        try:
            # An exclusive lock, so that a second program cannot steal half of the samples.
            self._port = serial.Serial(address, baudrate=baud, timeout=0, write_timeout=2, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise _explain(address, error) from error

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                data: bytes = self._port.read(65536)
            except (OSError, TypeError) as error:
                raise IncompleteError(
                    f"The connection to {self.address} was lost while reading.",
                    "Check the cable and the hub; what had arrived is kept.",
                ) from error
            if data or time.monotonic() >= deadline:
                return data
            # Small sleeps rather than a blocking read: batches of a few milliseconds cost far less than single bytes.
            time.sleep(min(0.004, max(0.0, deadline - time.monotonic())))

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (OSError, TypeError) as error:
            raise IncompleteError(
                f"{self.address} no longer takes commands.",
                "Check the cable, or unplug the meter and plug it in again.",
            ) from error

    def close(self) -> None:
        self._port.close()


def _explain(address: str, error: Exception) -> JouleMeterError:
    """The operating system's reason as an error that says what to do."""
    code = getattr(error, "errno", None)
    if code == errno.ENOENT or (not Path(address).exists() and os.name == "posix"):
        return NotFoundError(f"There is no port {address}.", "`joulemeter scan` lists what is connected.")
    if code in (errno.EACCES, errno.EPERM):
        return AccessError(
            f"No permission to open {address}.",
            "`joulemeter doctor` prints the udev rule or the group that is missing.",
        )
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return AccessError(f"{address} is in use by another program.", "Close the other program, then try again.")
    return NotFoundError(f"{address} cannot be opened as a serial port ({error}).", "`joulemeter scan` lists what can.")
