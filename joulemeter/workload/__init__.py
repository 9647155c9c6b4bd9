"""What runs while the meter records, on this host or on a board.

A workload package (a module in this folder, or anybody's with an entry point in the group `joulemeter.workloads`)
offers `create(target, options) -> Workload`, and importing it imports no machine-learning runtime. One that talks to
a board may also offer `simulate(load, options) -> SimulatedBoard`.

A *stamp pair* holds the host's monotonic clock before and after one window of inferences. Nothing but the inferences
happens between the two readings. Stamps are CLOCK_MONOTONIC nanoseconds on Linux, the clock of the recorder's anchors.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Event
from joulemeter.errors import UsageError
from joulemeter.instrument import Device
from joulemeter.synthetic import Load
from joulemeter.timeline import Timeline

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A workload as asked for: `kind` names its module, `target` is a file, function or port, "" where none is."""

    kind: str
    target: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What a workload does when nobody says otherwise.

    `windows` is how many; `at_once` how many the first call of `run` is asked for; `triggers` what marks them, the
    best first: a line such as `d0` counts only if a meter has it. `warmup` is the number of inferences before them.
    `plays`: whether `warm_up` infers there and then, so that a sync code can be played with it.
    """

    windows: int = 100
    at_once: int = 100
    warmup: int = 10
    triggers: tuple[str, ...] = ("host",)
    plays: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """`begin_ns` and `end_ns`, shape (windows,), int64, CLOCK_MONOTONIC nanoseconds.

    `u_s` is their standard uncertainty where it is not negligible. `phases` are further pairs of such arrays by name:
    parts inside a window or work beside it.
    """

    begin_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    inferences_per_window: int = 1
    u_s: float | None = None
    phases: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.begin_ns)


class Edge(Protocol):
    """An electrical edge around each window, for a meter with a digital line to see."""

    def begin(self) -> object: ...
    def end(self) -> object: ...


class Workload(ABC):
    """A model ready to run. Only `describe`, `prepare` and `run` have to be written.

    The order of calls: `prepare`, `describe`, then the meters start and a board has power, `ready`, `warm_up`, `run`
    until enough, `close`. `prepare` and `close` may be called twice, `close` also after a failure. `echo`, where it is
    set, is given each line that a program prints, from any thread.
    """

    habits: Habits = Habits()
    echo: Say | None = None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """result.json's `workload`: what runs, on what, with what; None where it is not known. Prepares if need be.

        Asked again at the end: what was learnt meanwhile (a board's name, an accuracy) is added then.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Load the model and fill its inputs, or open the port.

        Raises UsageError, NotFoundError, AccessError, or MissingExtraError when no runtime is installed.
        """

    def ready(self, say: Say) -> None:  # noqa: B027  most have nothing to wait for
        """The meters record, the board has power: wait until it answers, send it its inputs. Tell progress to `say`.

        Raises IncompleteError when it does not answer.
        """

    def warm_up(self, count: int) -> None:
        """Run `count` inferences without stamps: caches, clocks and lazy initialisation settle."""
        if count:
            self.run(1, count)

    @abstractmethod
    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """Run `count` windows back to back, of as many inferences as asked, or as it finds right (None)."""

    def heard(self) -> Sequence[Event]:
        """What a board or program has printed since the last call, as events."""
        return ()

    def edges(self, edge: Edge) -> None:
        """Have `edge` toggled around each window. Raises UsageError where this host does not run the inference."""
        raise UsageError(
            "This workload does not run in this process, so its inferences cannot be marked by an edge from here.",
            "Leave --edge out, and have the board mark them.",
        )

    def close(self) -> None:  # noqa: B027  most have nothing to give back
        """Give back what was opened."""


class WorkloadModule(Protocol):
    def create(self, target: str, options: Mapping[str, str]) -> Workload:
        """A workload that is not prepared yet. Raises UsageError for an option it does not have."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBoard:
    """`device` is the board's serial end; what it does is written into `timeline`, which a simulated meter draws."""

    device: Device
    timeline: Timeline


class BoardModule(WorkloadModule, Protocol):
    def simulate(self, load: Load, options: Mapping[str, str]) -> SimulatedBoard:
        """A board whose inference draws the steps of `load` that have a line high, and which idles at the rest."""
        ...


_SPEC = re.compile(r"([a-z][a-z0-9-]*)(?:[:@](.+))?")


def parse(text: str, options: Mapping[str, str] | None = None) -> Spec:
    """`KIND:TARGET`, `KIND@ADDRESS` or `KIND`, such as `tflite:kws.tflite`. Raises UsageError.

    Whether there is such a kind, and what its target has to be, its own module says.
    """
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a workload.", "Write it as KIND:TARGET, such as tflite:model.tflite.")
    return Spec(kind=match[1], target=match[2] or "", options=options or {})


def refuse_unknown_options(kind: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError that names the nearest known option."""
    known = sorted(known)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"Did you mean {close[0]}?" if close else f"It takes {', '.join(known) or 'none'}."
            raise UsageError(f"A {kind} workload has no option {name!r}.", remedy)


def whole(name: str, text: str, least: int) -> int:
    """An option that is a whole number. Raises UsageError."""
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{name} cannot be {text!r}.", f"It is a whole number of at least {least}.")
    return int(text)


def byte_of(text: str) -> int:
    """An option that is one byte: 1, 0x01. Raises UsageError."""
    try:
        return bytes([int(text, 0)])[0]
    except ValueError:
        raise UsageError(f"byte cannot be {text!r}.", "It is a number from 0 to 255, such as 1 or 0x01.") from None


def cpu_model(root: Path = Path("/")) -> str | None:
    """The processor's name as the kernel gives it, or None."""
    cpuinfo = _read(root / "proc/cpuinfo")
    for key in ("model name", "Model"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo or "", re.MULTILINE)
        if match:
            return match[1].strip()
    return _read(root / "proc/device-tree/model")


def cpu_governor(root: Path = Path("/")) -> str | None:
    """The frequency governors of the processors, joined by "+" where they differ; None where the kernel shows none."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return "+".join(sorted({text for file in files if (text := _read(file))})) or None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0 \n") or None
    except OSError:
        return None
