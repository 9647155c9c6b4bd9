"""What an instrument is to the rest of the toolkit.

An instrument package (a folder in instruments/, or anybody's package with an entry point in the group
`joulemeter.instruments`) offers these names, and importing it imports no optional dependency:

    INFO                        what it is, as data
    discover() -> list[Found]   which ones are connected; never raises for absence
    open(address, options)      a Driver, connected and identified, not yet streaming
    decoder(header)             bytes -> samples, from the header alone
    simulate(load, options)     the device end of the wire (a Device), drawing a load of known charge

The driver knows the device and moves bytes; the decoder knows the bytes and no device. Recording keeps the bytes, so
everything right of the driver can be done again by anyone.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from joulemeter.capture import Block, Channel, Header, Quantity
from joulemeter.errors import JouleMeterError, UsageError
from joulemeter.synthetic import Draw
from joulemeter.transport import Link


class Verified(StrEnum):
    """How far a driver has been shown to work."""

    SIMULATOR = "simulator only"
    TRANSCRIPT = "bytes of others, simulator"
    HARDWARE = "a real unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbId:
    vendor: int
    product: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the user may choose about an instrument by `--set NAME=VALUE`; without `values`, any text."""

    default: str
    summary: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """`supplies` is the range of voltages it can power a board with, or None. `extra` is the pip extra it needs.

    `load` is what its simulator draws where nobody names a load: levels that this meter is made for, and windows that
    it can measure. `load_v` is the voltage at which it does, where the meter measures that itself. `onboard`: it is
    part of a computer and measures that one only. `faces` are the wires of bench instruments that its simulator is
    served on (keys of scpiserve.KINDS), the usual one first; empty for one that speaks no SCPI.
    """

    key: str
    maker: str
    models: tuple[str, ...]
    summary: str
    wire: str
    transport: str
    channels: tuple[Channel, ...]
    rates_hz: tuple[float, ...]
    verified: Verified
    verified_note: str
    usb_ids: tuple[UsbId, ...] = ()
    supplies: tuple[float, float] | None = None
    extra: str | None = None
    load: str = "8mA/20ms/d0,250uA/80ms"
    load_v: float | None = None
    onboard: bool = False
    faces: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def sees_voltage(self) -> bool:
        """Whether power needs no voltage that somebody states."""
        whole = (Quantity.VOLTAGE, Quantity.POWER, Quantity.ENERGY)
        return any(channel.quantity in whole and not channel.aside for channel in self.channels)

    def chosen(self, options: Options) -> dict[str, str]:
        """Every setting with its value. Raises UsageError for a name or a value that it does not have."""
        for name, value in options.settings.items():
            setting = self.settings.get(name)
            if setting is None:
                known = f"Its settings: {', '.join(self.settings)}." if self.settings else "It has none."
                raise UsageError(f"The {self.key} has no setting {name!r}.", known)
            if setting.values and value not in setting.values:
                raise UsageError(f"{name} cannot be {value!r}.", f"Choose one of: {', '.join(setting.values)}.")
        return {name: setting.default for name, setting in self.settings.items()} | dict(options.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of the instrument.

    `supply_v` asks the instrument to power the board. `declared_v` is the user's word for a voltage it cannot see.
    `settings` are the instrument's own, as its INFO lists them.
    """

    supply_v: float | None = None
    declared_v: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A device that discovery saw. `problem` says why it cannot be opened, `remedy` what to do, both None if it can."""

    key: str
    address: str
    description: str
    serial: str | None = None
    problem: str | None = None
    remedy: str | None = None


class Driver(Protocol):
    """A connected instrument. `stop` and `close` may be called twice, in any order and after a failure."""

    def start(self) -> Header:
        """Begin streaming; the header is complete and describes every byte that `read` will return."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, b"" if nothing came in time. Raises IncompleteError when the device is gone."""
        ...

    def stop(self) -> None:
        """Stop streaming and leave the supply as it was found."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class LinkDriver(ABC):
    """What drivers on a link have in common: the end of it."""

    _link: Link

    @abstractmethod
    def stop(self) -> None:
        """As in Driver."""

    def close(self) -> None:
        self.stop()
        with contextlib.suppress(JouleMeterError, OSError):
            self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


@runtime_checkable
class Holding(Protocol):
    """A driver whose instrument keeps what it measured until it is fetched."""

    def remaining(self) -> Iterator[bytes]:
        """End what goes on, and what is held by then; asked once, before `stop`. Raises IncompleteError."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A driver that takes its time over something."""

    @property
    def doing(self) -> str:
        """What that is, for people; "" where there is nothing to tell."""
        ...


class Decoder(Protocol):
    """Raw bytes to samples. Chunk borders never change the result."""

    def feed(self, raw: bytes) -> list[Block]:
        """The samples completed by these bytes, in order; a new block begins after each hole."""
        ...

    def finish(self) -> list[Block]:
        """The samples held back until now; the stream has ended."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as JSON types."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Device(Protocol):
    """The device end of a wire, in its own time. Raises UnpluggedError from either method once it is gone."""

    def receive(self, data: bytes) -> None:
        """Bytes from the host."""
        ...

    def transmit(self, now_s: float) -> bytes:
        """What the device sends up to `now_s`, seconds of its own clock since it was plugged in."""
        ...


class InstrumentModule(Protocol):
    INFO: Info

    def discover(self) -> Sequence[Found]: ...
    def open(self, address: str, options: Options) -> Driver: ...
    def decoder(self, header: Header) -> Decoder: ...
    def simulate(self, load: Draw, options: Options) -> Device: ...
