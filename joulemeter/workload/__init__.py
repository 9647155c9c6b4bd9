"""What runs while the meter records, on this host or on a board.

A workload package (a module in this folder, or anybody's with an entry point in the group `joulemeter.workloads`)
offers `create(target, options) -> Workload`, and importing it imports no machine-learning runtime.

A *stamp pair* holds the host's monotonic clock before and after one window of inferences. Nothing but the inferences
happens between the two readings. Stamps are CLOCK_MONOTONIC nanoseconds on Linux, the clock of the recorder's anchors.
"""

from __future__ import annotations

import difflib
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from time import monotonic_ns
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A workload as asked for: `kind` names its module, `target` is a file, function or port, "" where none is."""

    kind: str
    target: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """`begin_ns` and `end_ns`, shape (windows,), int64, CLOCK_MONOTONIC nanoseconds."""

    begin_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    inferences_per_window: int = 1

    def __len__(self) -> int:
        return len(self.begin_ns)


class Workload(Protocol):
    """A model ready to run. `prepare` and `close` may be called twice."""

    def describe(self) -> dict[str, Any]:
        """result.json's `workload`: what ran, on what, with what; None where it is not known. Prepares if need be."""
        ...

    def prepare(self) -> None:
        """Load the model and fill its inputs. Raises UsageError, or MissingExtraError when no runtime is installed."""
        ...

    def warm_up(self, count: int) -> None:
        """Run `count` inferences without stamps: caches, clocks and lazy initialisation settle."""
        ...

    def run(self, count: int, inferences_per_window: int = 1) -> Stamps:
        """Run `count` windows back to back."""
        ...

    def close(self) -> None: ...


class WorkloadModule(Protocol):
    def create(self, target: str, options: Mapping[str, str]) -> Workload:
        """A workload that is not prepared yet. Raises UsageError for an option it does not have."""
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
            remedy = f"Did you mean {close[0]}?" if close else f"It takes {', '.join(known)}."
            raise UsageError(f"A {kind} workload has no option {name!r}.", remedy)


def stamp(invoke: Callable[[], object], count: int, inferences_per_window: int = 1) -> Stamps:
    """Call `invoke` in `count` windows of `inferences_per_window` calls and stamp each window. Raises UsageError.

    The garbage collector is off meanwhile.
    """
    if count < 1 or inferences_per_window < 1:
        raise UsageError(
            f"{count} windows of {inferences_per_window} inferences measure nothing.", "Both must be at least 1."
        )
    # Written once now, so that no page is mapped for the first time while the model runs.
    begin_ns = np.full(count, -1, dtype=np.int64)
    end_ns = np.full(count, -1, dtype=np.int64)
    # A memoryview stores an integer in half the time that an array takes.
    begin, end = begin_ns.data, end_ns.data
    with _no_collector():
        if inferences_per_window == 1:
            for window in range(count):
                started = monotonic_ns()
                invoke()
                ended = monotonic_ns()
                begin[window] = started
                end[window] = ended
        else:
            for window in range(count):
                calls = repeat(None, inferences_per_window)
                started = monotonic_ns()
                for _ in calls:
                    invoke()
                ended = monotonic_ns()
                begin[window] = started
                end[window] = ended
    return Stamps(begin_ns=begin_ns, end_ns=end_ns, inferences_per_window=inferences_per_window)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Garbage collection off, and back to what it was."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
