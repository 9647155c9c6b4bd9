"""Message sessions of a VISA library: VXI-11, HiSLIP, USBTMC, GPIB and whatever else it knows.

NI-VISA or Keysight VISA where one is installed, pyvisa-py otherwise; pyvisa is imported only when a session is opened.
No lock is taken: a script that dies would leave the instrument locked.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
import warnings
from typing import Any

from joulemeter.errors import AccessError, JouleMeterError, MissingExtraError, NotFoundError
from joulemeter.transport.visa_wires import CONNECT_S, Session

# With pyvisa-py 0.8 a VXI-11 reply that ends exactly where a read does is waited for until the timeout. A block has
# room behind its end, so that this never happens; another reply is asked for again, in reads of another size.
CHUNK_BYTES = 262_147
SHORT_BYTES = (4099, 5003)
_SLACK_BYTES = 64
_GOODBYE_S = 0.5
QUERY = "?*::INSTR"
# The others are serial ports: a question would disturb whatever else is behind them.
ASKED = ("USB", "GPIB", "TCPIP")


class LibrarySession(Session):
    """One open resource."""

    ends = True

    def __init__(self, address: str, timeout_s: float = CONNECT_S) -> None:
        """Raises NotFoundError, AccessError, MissingExtraError."""
        self.address = address
        self._connect_s = timeout_s
        self._errors = _pyvisa().errors
        self._status = _pyvisa().constants.StatusCode
        self._resource: Any = _open(address, timeout_s)
        self._library: Any = self._resource.visalib
        self._timeout_ms = 0
        self._broken = False
        self._short, self._other = SHORT_BYTES
        # Read but not yet asked for, and whether the end of the reply is in it.
        self._ready, self._ready_ends = b"", False
        # pyvisa-py says of every USBTMC transfer that it ends the message.
        self._by_length = address.upper().startswith("USB") and "py" in str(self._library.library_path)

    def write(self, message: bytes) -> None:
        self._ready = b""
        try:
            self._wait(self._connect_s)
            self._library.write(self._resource.session, message)
        except Exception as error:
            # Each backend has its own; what they mean here is the same.
            raise self._lost(f"no longer takes commands ({_short(error)})") from error

    def read_into(self, buffer: memoryview, timeout_s: float) -> tuple[int, bool]:
        if not self._ready:
            room = len(buffer)
            asked = max(room, self._short) if room <= CHUNK_BYTES + _SLACK_BYTES else CHUNK_BYTES
            self._ready, self._ready_ends = self._read(asked, timeout_s)
        count = min(len(self._ready), len(buffer))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count, self._ready_ends and not self._ready

    def _read(self, asked: int, timeout_s: float) -> tuple[bytes, bool]:
        """The next bytes, and whether they end the reply; none and not after the timeout. Raises IncompleteError."""
        try:
            self._wait(timeout_s)
            # More to come is no reason for a warning.
            with self._library.ignore_warning(self._resource.session, self._status.success_max_count_read):
                data, status = self._library.read(self._resource.session, asked)
        except self._errors.VisaIOError as error:
            if error.error_code not in (self._status.error_timeout, self._status.error_io):
                raise self._lost(f"was lost while reading ({_short(error)})") from error
            # A server that no longer answers calls gives the second one: the link is of no more use.
            self._broken = error.error_code == self._status.error_io
            return b"", False
        except TimeoutError:
            self._broken = True
            return b"", False
        except Exception as error:
            raise self._lost(f"was lost while reading ({_short(error)})") from error
        more = status == self._status.success_max_count_read or (self._by_length and len(data) >= asked)
        return bytes(data), not more

    def _wait(self, timeout_s: float) -> None:
        milliseconds = max(round(timeout_s * 1e3), 1)
        if milliseconds != self._timeout_ms:
            self._resource.timeout = milliseconds
            self._timeout_ms = milliseconds

    def clear(self) -> None:
        self._ready = b""
        self._short, self._other = self._other, self._short
        if not self._broken:
            try:
                self._wait(self._connect_s)
                self._resource.clear()
                return
            except Exception:  # noqa: S110 - a link that cannot be cleared is made anew
                pass
        self.close()
        try:
            self._resource = _open(self.address, self._connect_s)
        except JouleMeterError as error:
            raise self._lost(f"could not be made again ({error.what})") from error
        self._timeout_ms, self._broken = 0, False

    def status_byte(self) -> int | None:
        try:
            return int(self._resource.read_stb())
        except Exception:
            return None

    def close(self) -> None:
        def release(resource: Any = self._resource) -> None:
            with contextlib.suppress(Exception):
                resource.close()

        # pyvisa-py says goodbye to a VXI-11 server and waits five seconds for the answer, even of one that has gone.
        goodbye = threading.Thread(target=release, daemon=True)
        goodbye.start()
        goodbye.join(_GOODBYE_S)


def _pyvisa() -> Any:
    try:
        return importlib.import_module("pyvisa")
    except ImportError as error:
        raise MissingExtraError("Instruments on VISA are reached through pyvisa.", "pyvisa pyvisa-py") from error


def _manager() -> Any:
    """The installed VISA library, or pyvisa-py. Raises MissingExtraError."""
    pyvisa = _pyvisa()
    # What pyvisa-py finds missing (psutil, zeroconf) concerns discovery only.
    warnings.filterwarnings("ignore", category=UserWarning, module="pyvisa")
    try:
        return pyvisa.ResourceManager()
    except (OSError, ValueError):
        # Installed but not usable, for instance of the wrong word size.
        try:
            return pyvisa.ResourceManager("@py")
        except (OSError, ValueError) as error:
            raise MissingExtraError(f"No VISA library can be loaded ({_short(error)}).", "pyvisa-py") from error


def _open(address: str, timeout_s: float) -> Any:
    pyvisa = _pyvisa()
    try:
        return _manager().open_resource(address, open_timeout=round(timeout_s * 1e3))
    except JouleMeterError:
        raise
    except Exception as error:
        raise _explain(address, error, pyvisa) from error


def _explain(address: str, error: Exception, pyvisa: Any) -> JouleMeterError:
    """The library's reason as an error that says what to do."""
    text = _short(error)
    low = str(error).lower()
    status = pyvisa.constants.StatusCode
    code = getattr(error, "error_code", None)
    if isinstance(error, pyvisa.rname.InvalidResourceName) or code == status.error_invalid_resource_name:
        return NotFoundError(
            f"{address!r} is not a VISA resource.", "Write for instance TCPIP::192.168.1.5::INSTR or 192.168.1.5:5025."
        )
    if code in (status.error_resource_busy, status.error_resource_locked) or "creating link" in low:
        return AccessError(
            f"{address} is in use by another program or holds a lock ({text}).",
            "Close the other program; if one has died, switch the instrument's remote control off and on.",
        )
    if isinstance(error, PermissionError) or "access denied" in low or "permission" in low:
        return AccessError(
            f"No permission to open {address} ({text}).", "`joulemeter doctor` prints the udev rule that is missing."
        )
    if isinstance(error, ValueError) and ("pyusb" in low or "backend" in low):
        if importlib.util.find_spec("usb") is None:
            return MissingExtraError(f"{address} needs pyusb under pyvisa-py.", "joulemeter[usb]")
        return NotFoundError(
            "pyusb finds no libusb on this machine.",
            "Install libusb 1.0 (Debian: libusb-1.0-0; macOS: brew install libusb; Windows: pip install "
            "libusb-package), or the maker's VISA library.",
        )
    if isinstance(error, ValueError) and "gpib" in low:
        return MissingExtraError(f"{address} needs linux-gpib or NI-488.2 under pyvisa-py.", "gpib-ctypes")
    return NotFoundError(
        f"Nothing answers at {address} ({text}).",
        "Check cable and address, and that the instrument allows this kind of remote control.",
    )


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listed(limit_s: float) -> list[str]:
    """Resources on USB, GPIB and LAN that the library finds within `limit_s`. An absent backend finds nothing."""
    found: list[str] = []

    def look() -> None:
        with contextlib.suppress(Exception):
            found.extend(_manager().list_resources(QUERY))

    # Some libraries wait for the whole network; the thread is left behind then.
    search = threading.Thread(target=look, daemon=True)
    search.start()
    search.join(limit_s)
    return sorted({one for one in list(found) if one.upper().startswith(ASKED)})
