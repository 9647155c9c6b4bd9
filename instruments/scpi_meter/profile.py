"""What is known about one kind of SCPI instrument, as TOML: how it is asked, and what its answers mean. See notes.md.

Quantities are written with their units ("200ms") and are SI floats here. What is not known is absent.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.resources
import re
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from joulemeter import tables, units
from joulemeter.errors import UsageError
from joulemeter.scpi import Identity
from joulemeter.tables import Loaded, Seconds, Table, refuse_twins

Quantity = Literal["current", "voltage", "power", "energy", "charge"]
# The unit of each, and that of the offset in its accuracy: a counter's is of what it adds up.
UNITS: dict[str, str] = {"current": "A", "voltage": "V", "power": "W", "energy": "J", "charge": "C"}
OFFSET_UNITS: dict[str, str] = {**UNITS, "energy": "W", "charge": "A"}
COUNTERS = ("energy", "charge")
# With any of these nobody has to state a voltage.
WHOLE = ("voltage", "power", "energy")

CHANNEL, VOLTS = "{channel}", "{volts}"
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_PLAIN = re.compile(r"[ -~]+")
_NAME = re.compile(r"[A-Z0-9_]{1,16}")


class Volts(tables.Volts):
    zero = True


class Ratio(tables.Ratio):
    zero = True


class Connection(Table, frozen=True):
    """`port` is that of the raw socket where the address is only a host; None: VXI-11. `answer_s` is the longest wait
    for an answer."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    baud: Annotated[int, msgspec.Meta(ge=300)] = 9600
    answer_s: Seconds = msgspec.field(name="answer", default=Seconds(2.0))


class Row(Table, frozen=True):
    """± (gain of the reading + offset), as a limit. `verified`: read in the maker's own document."""

    gain: Ratio
    offset: str
    source: str
    verified: bool = False
    dof: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def offset_in(self, unit: str) -> float:
        """Raises UsageError."""
        value = units.parse(self.offset, unit)
        if value < 0:
            raise UsageError(f"{self.offset!r} is less than nothing.", "Write the half-width.")
        return value


class Reading(Table, frozen=True):
    """One number of an answer. `field` counts from 1 what commas or semicolons part; `unit` is that of the number."""

    quantity: Quantity
    query: str
    refresh_s: Seconds = msgspec.field(name="refresh")
    field: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    unit: str | None = None
    wrap: str | None = None
    witness: bool = False
    accuracy: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        _check_question(self.query)
        if self.wrap is not None and self.quantity not in COUNTERS:
            raise ValueError("only a counter of energy or charge starts over: leave wrap out")
        try:
            _ = self.scale, self.wraps_at
            for row in self.accuracy:
                row.offset_in(OFFSET_UNITS[self.quantity])
        except UsageError as error:
            raise ValueError(str(error)) from error

    @property
    def scale(self) -> float:
        """SI units per unit of the answer."""
        return units.parse_positive(f"1{self.unit or UNITS[self.quantity]}", UNITS[self.quantity])

    @property
    def wraps_at(self) -> float | None:
        return None if self.wrap is None else units.parse_positive(self.wrap, UNITS[self.quantity])


class Supply(Table, frozen=True):
    """How it powers a board: sent only where the user asks for a voltage.

    `set`, `on` and `off` are commands, `voltage` asks for the voltage set and `state` whether the output is on.
    `accuracy` is that of the voltage set, needed only where no reading is a voltage.
    """

    set: tuple[str, ...]
    on: tuple[str, ...]
    off: tuple[str, ...]
    state: str
    voltage: str
    accuracy: Row | None = None

    def __post_init__(self) -> None:
        for name, commands in (("set", self.set), ("on", self.on), ("off", self.off)):
            if not commands:
                raise ValueError(f"{name} has no command")
            for command in commands:
                _check_command(command, VOLTS if name == "set" else "")
        if not any(VOLTS in command for command in self.set):
            raise ValueError(f"no command of set has {VOLTS}")
        for query in (self.state, self.voltage):
            _check_question(query)
        if self.accuracy is not None:
            try:
                self.accuracy.offset_in("V")
            except UsageError as error:
                raise ValueError(str(error)) from error


class Channel(Table, frozen=True):
    """One output or input: what {channel} stands for, and the voltages that it can supply.

    `mask` is the bit of the answer to `state` that says that it is on, where that answer is a number of bits.
    """

    name: str
    min_v: Volts = msgspec.field(name="min", default=Volts(0.0))
    max_v: Volts | None = msgspec.field(name="max", default=None)
    mask: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a name of up to 16 capitals and digits")
        if self.max_v is not None and self.max_v <= self.min_v:
            raise ValueError("min is not below max")


class Profile(Table, frozen=True):
    """`makers` and `models` are patterns (* and ?) of the first two fields of *IDN?, without regard to case.

    `setup` is sent before a recording and `restore` after it; what the headers in `keep` are set to before is put back.
    `error` asks for the next entry of the error queue. `not_measured` are answers that say that there is no reading,
    besides those of SCPI itself (9.9E37, 9.91E37, INF, NAN). `verified` tells how far commands have been shown to work.
    """

    name: str
    makers: tuple[str, ...]
    models: tuple[str, ...]
    source: str
    verified: str
    readings: tuple[Reading, ...] = msgspec.field(name="reading")
    channels: tuple[Channel, ...] = msgspec.field(name="channel", default=())
    connection: Connection = Connection()
    setup: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    error: str | None = None
    not_measured: tuple[str, ...] = ()
    supply: Supply | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.makers or not self.models:
            raise ValueError("makers and models need a pattern each; * fits all")
        if not any(not reading.witness for reading in self.readings):
            raise ValueError("no reading is to be reported")
        refuse_twins("quantity", (reading.quantity for reading in self.readings if not reading.witness))
        refuse_twins("channel", (channel.name for channel in self.channels))
        for command in (*self.setup, *self.restore):
            _check_command(command)
        for header in self.keep:
            _check_command(header)
        if self.error is not None:
            _check_question(self.error)
        if not self.channels and CHANNEL in "".join(self._texts()):
            raise ValueError(f"{CHANNEL} is used and there is no [[channel]]")
        if self.supply is not None and not (self.channels and all(channel.max_v for channel in self.channels)):
            raise ValueError("a supply needs a [[channel]], and each of them a max")

    def _texts(self) -> Iterator[str]:
        yield from (*self.setup, *self.restore, *self.keep, *(reading.query for reading in self.readings))
        if self.supply is not None:
            yield from (*self.supply.set, *self.supply.on, *self.supply.off, self.supply.state, self.supply.voltage)

    def fits(self, identity: Identity) -> bool:
        return _fits(identity.maker, self.makers) and _fits(identity.model, self.models)

    def channel(self, name: str) -> Channel | None:
        """The one of that name, for auto the first. Raises UsageError."""
        if not self.channels and name == "auto":
            return None
        for channel in self.channels:
            if name in ("auto", channel.name):
                return channel
        known = ", ".join(channel.name for channel in self.channels)
        remedy = f"Choose one of: {known}." if known else "It has only one: leave channel out."
        raise UsageError(f"The profile of the {self.name} has no channel {name!r}.", remedy)

    @property
    def sees_voltage(self) -> bool:
        """Whether power needs no voltage that somebody states."""
        return any(reading.quantity in WHOLE and not reading.witness for reading in self.readings)


def load(path: Path) -> Profile:
    """A file of the user's. Raises UsageError that names the file and the key."""
    return _read(path, str(path)).profile


def find(name_or_path: str) -> Loaded[Profile]:
    """What `--set profile=` names: one that comes with the package, or a file. Raises UsageError.

    Whatever ends in .toml or holds a slash is a path.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path or "\\" in name_or_path:
        return _read(Path(name_or_path), name_or_path)
    files = {_stem(file): file for file in _files()}
    if name_or_path not in files:
        close = difflib.get_close_matches(name_or_path.lower(), files, n=1, cutoff=0.5)
        remedy = f"Did you mean {close[0]}?" if close else f"There are {', '.join(files)}; or give a path to your own."
        raise UsageError(f"There is no profile {name_or_path!r} of an SCPI instrument.", remedy)
    return _read(files[name_or_path], name_or_path)


def shipped() -> dict[str, Loaded[Profile]]:
    """All that come with the package, by name."""
    return {_stem(file): _read(file, _stem(file)) for file in _files()}


def matching(identity: Identity) -> Loaded[Profile] | None:
    """The first of those that come with the package that fits."""
    return next((loaded for loaded in shipped().values() if loaded.profile.fits(identity)), None)


def fill(template: str, channel: Channel | None, volts: float | None = None) -> str:
    """A command or query with what its placeholders stand for."""
    text = template if channel is None else template.replace(CHANNEL, channel.name)
    return text if volts is None else text.replace(VOLTS, f"{volts:.4f}")


# -- reading a file ----------------------------------------------------------------------------------------------------


def _files() -> list[Traversable]:
    folder = importlib.resources.files(__package__) / "profiles"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)


def _stem(file: Traversable) -> str:
    return file.name.removesuffix(".toml")


def _read(file: Traversable, label: str) -> Loaded[Profile]:
    return tables.read(Profile, file, label)


def _check_command(command: str, placeholder: str = "") -> None:
    """Text of one line, with no placeholder but {channel} and this one."""
    if not _PLAIN.fullmatch(command) or not command.strip():
        raise ValueError(f"{command!r} must be one line of plain letters")
    if "?" in command:
        raise ValueError(f"{command!r} is a question, whose answer nobody would read")
    _check_placeholders(command, placeholder)


def _check_question(query: str) -> None:
    if not _PLAIN.fullmatch(query) or "?" not in query:
        raise ValueError(f"{query!r} is no question: one line of plain letters with a question mark")
    _check_placeholders(query)


def _check_placeholders(text: str, also: str = "") -> None:
    allowed = [CHANNEL, *([also] if also else [])]
    for found in _PLACEHOLDER.findall(text):
        if found not in allowed:
            raise ValueError(f"{found} in {text!r} stands for nothing here; there is {' and '.join(allowed)}")
    if set("{}") & set(_PLACEHOLDER.sub("", text)):
        raise ValueError(f"{text!r} has a lone brace")


def _fits(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(text.upper(), pattern.upper()) for pattern in patterns)
