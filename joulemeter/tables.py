"""TOML tables with units: how profiles of all kinds are read, and what is said of one that is wrong.

Quantities are strings with units ("104.6ms") in the file and SI floats here. An unknown key is an error that tells the
nearest name: a misspelt one would otherwise measure with the default.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from joulemeter import units
from joulemeter.errors import UsageError


class Quantity(float):
    """A float that was written with its unit; greater than zero unless `signed`, or zero too where `zero`."""

    unit: ClassVar[str]
    signed: ClassVar[bool] = False
    zero: ClassVar[bool] = False


class Amperes(Quantity):
    unit = "A"


class Volts(Quantity):
    unit = "V"


class Seconds(Quantity):
    unit = "s"


class Hertz(Quantity):
    unit = "Hz"


class Coulombs(Quantity):
    unit = "C"


class Ohms(Quantity):
    unit = "ohm"


class Ratio(Quantity):
    unit = "1"


class Joules(Quantity):
    unit = "J"


class Kelvins(Quantity):
    unit = "K"


class Watts(Quantity):
    unit = "W"


class Celsius(Quantity):
    unit = "degC"
    signed = True


class Bytes(int):
    """A memory size, written "192KiB" or "1MiB"."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One TOML table. An unknown key is an error: a misspelt one would otherwise measure with the default."""


P = TypeVar("P", bound=Table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[P]):
    """A profile with what provenance needs: `path` as a person would name it, the file's text, and its hash."""

    profile: P
    path: str
    text: str
    sha256: str


def read(struct: type[P], file: Traversable, label: str) -> Loaded[P]:
    """A file as that kind of table; errors name it by `label`. Raises UsageError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{label} cannot be read: {error.strerror}.", "Check the path.") from error
    text, data = content.decode(errors="replace"), parse(content, label)
    for place, key, known in _unknown_keys(data, msgspec.inspect.type_info(struct)):
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known there are {', '.join(sorted(known))}."
        raise UsageError(f"{label}: {place}{key} is not a known key.", remedy)
    try:
        profile = msgspec.convert(data, struct, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise UsageError(f"{label}: {place.strip('.`') or 'the file'}: {what}", "Correct it there.") from error
    return Loaded(profile=profile, path=label, text=text, sha256=hashlib.sha256(content).hexdigest())


def parse(content: bytes, label: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{label} is not TOML: {error}.", "Correct it there.") from error


def _unknown_keys(data: object, kind: msgspec.inspect.Type, place: str = "") -> Iterator[tuple[str, str, list[str]]]:
    """Place, key and the keys known there, for each key that no field takes."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for each in kind.types:
            yield from _unknown_keys(data, each, place)
    if isinstance(kind, msgspec.inspect.VarTupleType) and isinstance(data, list):
        for index, item in enumerate(data):
            yield from _unknown_keys(item, kind.item_type, f"{place.removesuffix('.')}[{index}].")
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(data, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, value in data.items():
            if key in fields:
                yield from _unknown_keys(value, fields[key], f"{place}{key}.")
            else:
                yield place, key, list(fields)


_BYTES = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTE_FACTORS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _from_text(kind: type, value: object) -> object:
    """A quantity from its text; ValueError, to which msgspec adds the place."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} must be text with a unit")
    if issubclass(kind, Bytes):
        match = _BYTES.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is not a memory size such as 192KiB")
        return kind(int(match[1]) * _BYTE_FACTORS[match[2]])
    if not issubclass(kind, Quantity):
        raise NotImplementedError(kind)
    try:
        free = kind.signed or kind.zero
        given = kind((units.parse if free else units.parse_positive)(value, kind.unit))
    except UsageError as error:
        raise ValueError(str(error)) from error
    if given < 0 and not kind.signed:
        raise ValueError(f"{value!r} is less than nothing")
    return given


def refuse_twins(what: str, labels: Iterable[str]) -> None:
    """Raises ValueError, to which msgspec adds the place."""
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"{what} {label!r} is given twice")
        seen.add(label)
