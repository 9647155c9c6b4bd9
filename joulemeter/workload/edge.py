"""Electrical edges out of this host, so that a meter with a digital line sees when the model runs.

    gpio:gpiochip0/17     a line of a GPIO chip by its number or name (Linux, package gpiod)
    gpio:GPIO17           a line by its name, on whichever chip has it
    rts:/dev/ttyUSB0      the RTS pin of a USB-serial adaptor; `dtr:` likewise, and any address of pyserial

`,high` or `,low` behind it is the level at the pin while the model runs: what the meter's trigger waits for (`d0` or
`d0:low`). A GPIO line is high when nothing is said, RTS and DTR are low. They are inverted on adaptors with logic
levels: asserted is 0 V, and a port that is closed, whose program has died or that was just plugged in rests high.
So the low pulse is the one that a crash cannot leave standing. An adaptor with a nine-pin plug drives 5 to 12 V of
either sign, too much for the digital inputs of meters; put a receiver such as a MAX3232 between them.

What the meter sees: the line rises somewhere within the call of `begin` and falls somewhere within that of `end`. The
stamps lie between the two calls, so the pulse is longer than the stamped window by at least nothing and at most the
two calls. `measure_cost` times these calls. What part of them is constant the meter itself can tell: let it record
`empty_pairs`. Each of these pulses holds no work, so its width is exactly that excess; take their median off the
duration of a window, and their spread as its uncertainty. Where the meter sees none of them they are shorter than
its sampling interval.

On Linux the call returns after the edge: a GPIO register is written inside it, and the drivers of the usual adaptors
(FTDI, CP210x, CH340, PL2303, CDC-ACM) wait for the USB transfer. Over a network (rfc2217://) it lasts a round trip.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic_ns
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import (
    AccessError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.workload.stamping import no_collector

Level = Literal["high", "low"]
Call = Callable[[], object]

SYNTAX = "Write gpio:gpiochip0/17, gpio:LINENAME, rts:PORT or dtr:PORT, with ,high or ,low behind it if need be."
DEVICES = Path("/dev")
# Between empty pairs, so that a meter of 100 kHz sees each of them alone.
EMPTY_PAIR_GAP_S = 0.001


class EdgeLine(ABC):
    """A line that this host drives. `begin` makes it active and `end` inactive; both exist once it is open.

    `text` is how it was asked for and `level` what the pin is at while it is active. It is inactive after `open` and
    after `close`, which also runs when the interpreter exits. Only a killed process can leave it active.
    """

    begin: Call
    end: Call

    def __init__(self, text: str, level: Level) -> None:
        self.text = text
        self.level: Level = level
        self._opened = False

    def open(self) -> Self:
        """Take the line and make it inactive. Raises UsageError, NotFoundError, AccessError, MissingExtraError."""
        if not self._opened:
            begin, end = self._take()
            self.begin, self.end = self._explained(begin), self._explained(end)
            self._opened = True
            atexit.register(self.close)
        return self

    def close(self) -> None:
        """Inactive, and given back. May be called twice."""
        if self._opened:
            self._opened = False
            atexit.unregister(self.close)
            with contextlib.suppress(JouleMeterError):
                self.end()
            with contextlib.suppress(OSError, ValueError):
                self._release()

    def _explained(self, call: Call) -> Call:
        def toggle() -> None:
            try:
                call()
            except (OSError, ValueError) as error:
                # ValueError: no answer over the network.
                reason = getattr(error, "strerror", None) or error
                raise IncompleteError(
                    f"The edge line {self.text} was lost: {reason}.", "Check the cable and the hub."
                ) from error

        return toggle

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _take(self) -> tuple[Call, Call]:
        """Open the line, inactive; the calls that make it active and inactive."""

    @abstractmethod
    def _release(self) -> None: ...


class GpioLine(EdgeLine):
    """A line of a GPIO chip, driven push-pull. `chip` None: whichever has a line of that name."""

    def __init__(self, text: str, level: Level, chip: Path | None, line: str) -> None:
        super().__init__(text, level)
        self.chip = chip
        self.line = line
        self._request: Any = None

    def _take(self) -> tuple[Call, Call]:
        gpiod = _gpiod()
        path = self.chip or self._find(gpiod)
        offset: int | None = None
        try:
            with gpiod.Chip(str(path)) as chip:
                offset = chip.line_offset_from_id(self.line)
                settings = gpiod.LineSettings(
                    direction=gpiod.line.Direction.OUTPUT,
                    active_low=self.level == "low",
                    output_value=gpiod.line.Value.INACTIVE,
                )
                self._request = chip.request_lines(config={offset: settings}, consumer="joulemeter")
        except ValueError as error:
            raise NotFoundError(
                f"{path} has no line {self.line}.", f"`gpioinfo -c {path.name}` lists its lines."
            ) from error
        except OSError as error:
            raise self._explain(path, offset, error) from error
        set_values, value = self._request.set_values, gpiod.line.Value
        # The dictionaries are made once: the call then costs one step into the library.
        return partial(set_values, {offset: value.ACTIVE}), partial(set_values, {offset: value.INACTIVE})

    def _release(self) -> None:
        self._request.release()

    def _find(self, gpiod: Any) -> Path:
        """The one chip with a line of that name."""
        chips = {path.resolve() for path in DEVICES.glob("gpiochip*") if gpiod.is_gpiochip_device(str(path))}
        having = []
        for path in sorted(chips):
            try:
                with gpiod.Chip(str(path)) as chip:
                    chip.line_offset_from_id(self.line)
                    having.append(path)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    raise _no_permission(path) from error
        if not having:
            among = f"on {', '.join(path.name for path in sorted(chips))}" if chips else "as there is no GPIO chip"
            raise NotFoundError(f"There is no GPIO line {self.line!r} {among}.", "`gpioinfo` lists chips and lines.")
        if len(having) > 1:
            names = [path.name for path in having]
            raise UsageError(
                f"{' and '.join(names)} each have a line {self.line!r}.", f"Write gpio:{names[0]}/{self.line}."
            )
        return having[0]

    def _explain(self, path: Path, offset: int | None, error: OSError) -> JouleMeterError:
        if error.errno in (errno.EACCES, errno.EPERM):
            return _no_permission(path)
        if error.errno == errno.EBUSY:
            return AccessError(
                f"Line {self.line} of {path} is in use by another program or driver.",
                f"`gpioinfo -c {path.name}` names it. Stop that one or take another line.",
            )
        if error.errno == errno.ENOENT and path.exists() and offset is None:
            return NotFoundError(f"{path} has no line {self.line!r}.", f"`gpioinfo -c {path.name}` lists its lines.")
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTTY):
            return NotFoundError(f"There is no GPIO chip {path}.", "`gpiodetect` lists those of this host.")
        return NotFoundError(
            f"Line {self.line} of {path} cannot be made an output: {error.strerror or error}.", "Take another line."
        )


class ControlLine(EdgeLine):
    """`name` is "rts" or "dtr", a modem control line of a serial port."""

    def __init__(self, text: str, level: Level, name: str, port: str) -> None:
        super().__init__(text, level)
        self.name = name
        self.port = port
        self._serial: Any = None

    def _take(self) -> tuple[Call, Call]:
        import serial

        active = self.level == "low"
        try:
            opened = serial.serial_for_url(self.port, do_not_open=True, exclusive=True)
            # Before it is opened, so that opening it drives this level.
            setattr(opened, self.name, not active)
            opened.open()
        except (serial.SerialException, OSError, ValueError) as error:
            raise self._explain(error) from error
        try:
            setattr(opened, self.name, not active)
            if not active:
                _keep_lines_on_close(opened)
        except (OSError, ValueError) as error:
            opened.close()
            raise UsageError(
                f"{self.port} has no {self.name.upper()} line: {getattr(error, 'strerror', None) or error}.",
                "Use a USB-serial adaptor that brings this pin out.",
            ) from error
        self._serial = opened
        return partial(setattr, opened, self.name, active), partial(setattr, opened, self.name, not active)

    def _release(self) -> None:
        self._serial.close()

    def _explain(self, error: Exception) -> JouleMeterError:
        code = getattr(error, "errno", None)
        local = "://" not in self.port
        if code in (errno.EACCES, errno.EPERM):
            return AccessError(
                f"No permission to open {self.port}.",
                f"`ls -l {self.port}` names its group, usually dialout: `sudo usermod -aG dialout $USER`, then log in "
                "again.",
            )
        if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
            return AccessError(
                f"{self.port} is in use by another program.", "Close it, or use an adaptor of its own for the edge."
            )
        if isinstance(error, ValueError) and not local:
            return UsageError(f"{self.port} is not an address of a serial port: {error}.", SYNTAX)
        if local and not Path(self.port).exists():
            return NotFoundError(f"There is no port {self.port}.", "`joulemeter scan` lists what is connected.")
        return NotFoundError(f"{self.port} cannot be opened as a serial port ({error}).", "Check the address.")


def parse_edge(text: str) -> EdgeLine:
    """The line of `--edge`, not opened yet: nothing is looked up or toggled. Raises UsageError."""
    kind, colon, rest = text.strip().partition(":")
    address, comma, suffix = rest.rpartition(",")
    if not comma:
        address, suffix = rest, ""
    if not colon or kind not in ("gpio", "rts", "dtr") or not address or suffix not in ("", "high", "low"):
        raise UsageError(f"{text!r} is not an edge line.", SYNTAX)
    if comma and not suffix:
        raise UsageError(f"{text!r} names no level behind the comma.", SYNTAX)
    level: Level = "low" if (suffix or ("high" if kind == "gpio" else "low")) == "low" else "high"
    if kind != "gpio":
        return ControlLine(text.strip(), level, kind, address)
    chip, slash, line = address.rpartition("/")
    if not line or (slash and not chip):
        raise UsageError(f"{text!r} names no line.", SYNTAX)
    if not slash and line.isdecimal():
        raise UsageError(f"{text!r} does not say of which chip line {line} is.", f"Write gpio:gpiochip0/{line}.")
    return GpioLine(text.strip(), level, DEVICES / chip if slash else None, line)


# -- what it costs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCost:
    """Seconds from before to after the call. `jitter_s` is the span that the middle 90 % of them lie in."""

    median_s: float
    p99_s: float
    max_s: float
    jitter_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCost:
    """Durations by the monotonic clock, whose own reading (`clock_s`, median) is contained in each.

    `empty_pair` runs from before `begin` to after `end` with nothing between: the widest pulse without work.
    """

    line: str
    level: Level
    pairs: int
    begin: CallCost
    end: CallCost
    empty_pair: CallCost
    clock_s: float

    @property
    def u_edge_s(self) -> float:
        """Standard uncertainty of where an edge lies in its call: anywhere in it, to 99 %, so p99 / sqrt(12).

        Of the slower of the two calls; rectangular (JCGM 100, 4.3.7). The stamps are the late end of `begin` and the
        early end of `end`: the pulse is longer than the window by half of both calls on average.
        """
        return float(max(self.begin.p99_s, self.end.p99_s) / 12**0.5)

    @property
    def excess_s(self) -> tuple[float, float]:
        """What the pulse is longer than the stamped window by: at least nothing, at most both calls (99 %)."""
        return 0.0, self.begin.p99_s + self.end.p99_s

    def to_dict(self) -> dict[str, Any]:
        """For the result: the fields, `u_edge_s`, its distribution, and `excess_s`."""
        return asdict(self) | {
            "u_edge_s": self.u_edge_s,
            "distribution": "rectangular",
            "excess_s": list(self.excess_s),
        }


def measure_cost(edge: EdgeLine, pairs: int = 1000) -> EdgeCost:
    """Toggle an open line and time each call. Do it before the meters start. Raises UsageError, IncompleteError."""
    if pairs < 2:
        raise UsageError(f"{pairs} pairs do not show a jitter.", "Measure at least 2.")
    stamps = np.full((pairs, 3), -1, dtype=np.int64)
    # The widest pulse is timed without a reading of the clock inside it.
    whole = np.full((pairs, 2), -1, dtype=np.int64)
    clock = np.full((pairs, 2), -1, dtype=np.int64)
    begin, end = edge.begin, edge.end
    with no_collector():
        try:
            for pair in range(pairs):
                started = monotonic_ns()
                begin()
                active = monotonic_ns()
                end()
                stamps[pair] = started, active, monotonic_ns()
            for pair in range(pairs):
                started = monotonic_ns()
                begin()
                end()
                whole[pair] = started, monotonic_ns()
        finally:
            end()
        for pair in range(pairs):
            clock[pair] = monotonic_ns(), monotonic_ns()
    return EdgeCost(
        line=edge.text,
        level=edge.level,
        pairs=pairs,
        begin=_cost(stamps[:, 1] - stamps[:, 0]),
        end=_cost(stamps[:, 2] - stamps[:, 1]),
        empty_pair=_cost(whole[:, 1] - whole[:, 0]),
        clock_s=float(np.median(clock[:, 1] - clock[:, 0])) * 1e-9,
    )


def empty_pairs(edge: EdgeLine, count: int, gap_s: float = EMPTY_PAIR_GAP_S) -> None:
    """`count` pulses without work, `gap_s` apart, for a meter to record."""
    begin, end = edge.begin, edge.end
    try:
        for _ in range(count):
            begin()
            end()
            time.sleep(gap_s)
    finally:
        end()


def _cost(durations_ns: NDArray[np.int64]) -> CallCost:
    low, middle, high, rare = np.percentile(durations_ns, (5, 50, 95, 99)) * 1e-9
    return CallCost(
        median_s=float(middle), p99_s=float(rare), max_s=float(durations_ns.max()) * 1e-9, jitter_s=float(high - low)
    )


# -- the two kinds of lines --------------------------------------------------------------------------------------------


def _gpiod() -> Any:
    try:
        gpiod = importlib.import_module("gpiod")
    except ImportError as error:
        if not sys.platform.startswith("linux"):
            raise UsageError(
                "GPIO lines are a thing of Linux.", "On this system use rts: or dtr: of a USB-serial adaptor."
            ) from error
        raise MissingExtraError("GPIO lines need the package gpiod.", "joulemeter[gpio]") from error
    if not hasattr(gpiod, "request_lines"):
        # The system's python3-libgpiod of Debian 12 and Ubuntu 22.04 goes by the same name.
        raise MissingExtraError("The gpiod that is installed has the interface of version 1.", "joulemeter[gpio]")
    return gpiod


def _no_permission(path: Path) -> AccessError:
    return AccessError(
        f"No permission to open {path}.",
        f"`ls -l {path}` names its group. Where that is gpio: `sudo usermod -aG gpio $USER`, then log in again. Where "
        f'it is root: `sudo groupadd -f gpio`, `sudo usermod -aG gpio $USER`, `echo \'SUBSYSTEM=="gpio", '
        'KERNEL=="gpiochip*", GROUP="gpio", MODE="0660"\' | sudo tee /etc/udev/rules.d/60-gpio.rules`, '
        "`sudo udevadm control --reload`, `sudo udevadm trigger`, then log in again.",
    )


def _keep_lines_on_close(opened: Any) -> None:
    """Closing a port drops its lines (HUPCL), which drives their pins high; a line that rests low must not be."""
    if sys.platform == "win32" or not hasattr(opened, "fd") or opened.fd is None:
        return
    import termios

    with contextlib.suppress(termios.error):
        attributes = termios.tcgetattr(opened.fd)
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(opened.fd, termios.TCSANOW, attributes)
