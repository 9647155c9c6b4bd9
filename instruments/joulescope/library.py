"""The maker's library, with its errors told as ours. The only place that imports it."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from joulemeter.errors import (
    AccessError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)

from . import wire

MODULE = "pyjoulescope_driver"
NO_SERIAL = "unknown"  # what the library calls a meter whose serial number it cannot read
UDEV = (
    "Copy 72-joulescope.rules of github.com/jetperch/joulescope_driver to /etc/udev/rules.d/, run `sudo udevadm "
    "control --reload-rules`, and plug the meter in again; over SSH take 99-joulescope.rules and the group plugdev."
)
VIRTUAL = "In a virtual machine or WSL it may not work at all: the maker does not support them."
REPLUG = f"Unplug it and plug it in again, without a hub. {VIRTUAL}"
CLOSE_OTHERS = "Close the Joulescope application and every other program that uses it."

# Codes of the library, and of libusb, which it hands through: what happened, and the error to raise.
_NO_PERMISSION = (18, -3)
_BUSY = (19, 21, -6)
_GONE = (16, 22, -4, -5)
_REFUSED = (3, 5, 20)
_CODE = re.compile(r"failed (-?\d+)")


class Library(Protocol):
    """The names of pyjoulescope_driver.Driver that are used here."""

    log_level: Any

    def device_paths(self, timeout: float | None = None) -> list[str]: ...
    def open(self, device_prefix: str, mode: Any = None, timeout: float | None = None) -> None: ...
    def close(self, device_prefix: str, timeout: float | None = None) -> None: ...
    def publish(self, topic: str, value: Any, timeout: float | None = None) -> None: ...
    def query(self, topic: str, timeout: float | None = None) -> Any: ...
    def subscribe(
        self, topic: str, flags: Any, fn: Callable[[str, Any], None], timeout: float | None = None
    ) -> None: ...
    def unsubscribe(self, topic: str, fn: Callable[[str, Any], None], timeout: float | None = None) -> None: ...
    def finalize(self, timeout: float | None = None) -> None: ...


class _Shared:
    """The real one: it can be started once in a process, so that all who need it share it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started: Library | None = None
        self.users = 0


_shared = _Shared()


def load() -> Library:
    """The real one, to be given back by `release`. Raises MissingExtraError, AccessError."""
    with _shared.lock:
        if _shared.started is None:
            _shared.started = _start()
        _shared.users += 1
        return _shared.started


def _start() -> Library:
    try:
        module = importlib.import_module(MODULE)
    except ImportError as error:
        raise MissingExtraError(
            f"A Joulescope is spoken to through the maker's library, which cannot be loaded ({error}).",
            "joulemeter[joulescope]",
        ) from error
    with told("The Joulescope library"):
        started: Library = module.Driver()
    return started


def release(used: Library) -> None:
    """Ends the real one with its last user, and any other at once."""
    with _shared.lock:
        if used is _shared.started:
            _shared.users -= 1
            if _shared.users:
                return
            _shared.started = None
        with contextlib.suppress(RuntimeError, TimeoutError):
            used.finalize()


@contextlib.contextmanager
def opened() -> Iterator[Library]:
    """The real one, for as long as needed. Raises as `load`."""
    started = load()
    try:
        yield started
    finally:
        release(started)


def measuring(paths: Sequence[str]) -> list[str]:
    """Those of them that are meters, not boot loaders or adapters."""
    return [path for path in paths if path.count("/") == 2 and path.split("/")[1] in wire.MODELS]


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Turns the library's errors into ours; `name` says what it was done with."""
    try:
        yield
    except TimeoutError as error:
        raise AccessError(f"{name} does not answer ({error}).", f"{CLOSE_OTHERS} {REPLUG}") from error
    except RuntimeError as error:
        raise _error(name, str(error)) from error


def _error(name: str, text: str) -> JouleMeterError:
    found = _CODE.search(text)
    code = int(found[1]) if found else None
    if code in _NO_PERMISSION:
        return AccessError(f"No permission to open {name}.", UDEV)
    if code in _BUSY:
        return AccessError(f"{name} is in use.", CLOSE_OTHERS)
    if code in _GONE:
        return NotFoundError(f"{name} is not there any more ({text}).", REPLUG)
    if code in _REFUSED:
        return UsageError(f"{name} does not take a setting ({text}).", "Update its firmware and pyjoulescope_driver.")
    return IncompleteError(f"{name} refuses ({text}).", REPLUG)
