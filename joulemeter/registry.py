"""Finds instruments, readers and workloads by their entry points; the core never imports one by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import InstrumentModule
from joulemeter.reader import ReaderModule
from joulemeter.workload import WorkloadModule

INSTRUMENTS = "joulemeter.instruments"
READERS = "joulemeter.readers"
WORKLOADS = "joulemeter.workloads"


def keys(group: str) -> list[str]:
    return sorted({entry.name for entry in entry_points(group=group)})


def _load(group: str, key: str) -> Any:
    found: list[EntryPoint] = [entry for entry in entry_points(group=group) if entry.name == key]
    if len({entry.value for entry in found}) > 1:
        names = ", ".join(f"{entry.value} ({entry.dist.name if entry.dist else 'unknown package'})" for entry in found)
        raise UsageError(f"Two packages offer {key!r}: {names}.", "Uninstall one of them.")
    if not found:
        raise KeyError(key)
    return found[0].load()


def _near(key: str, there: list[str]) -> str:
    near = difflib.get_close_matches(key, there, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(there) or 'none'}."


def instrument(key: str) -> InstrumentModule:
    """Raises NotFoundError naming the nearest keys."""
    try:
        return cast(InstrumentModule, _load(INSTRUMENTS, key))
    except KeyError:
        raise NotFoundError(
            f"There is no meter called {key!r}.",
            f"{_near(key, keys(INSTRUMENTS))} A driver that was just added needs a new `pip install`.",
        ) from None


def instruments() -> Iterator[tuple[str, InstrumentModule]]:
    for key in keys(INSTRUMENTS):
        yield key, instrument(key)


def reader(key: str) -> ReaderModule:
    """Raises UsageError."""
    try:
        return cast(ReaderModule, _load(READERS, key))
    except KeyError:
        raise UsageError(f"There is no reader called {key!r}.", _near(key, keys(READERS))) from None


def reader_for(path: Path) -> ReaderModule:
    """The one reader that recognises `path`. Raises UsageError when none or several do."""
    fitting = [module for module in map(reader, keys(READERS)) if module.recognises(path)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(module.INFO.key for module in fitting)
        raise UsageError(f"{path} fits several formats: {names}.", "Rename or separate the files.")
    known = "; ".join(module.INFO.summary for module in map(reader, keys(READERS)))
    raise UsageError(f"{path} is not a recording that can be read.", f"Readable: run directories; {known}.")


def workload(kind: str) -> WorkloadModule:
    """The module of a workload kind. Raises UsageError."""
    try:
        return cast(WorkloadModule, _load(WORKLOADS, kind))
    except KeyError:
        raise UsageError(f"There is no workload called {kind!r}.", _near(kind, keys(WORKLOADS))) from None
