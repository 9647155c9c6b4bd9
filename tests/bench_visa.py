"""Speed of a 24 MB block from a raw socket beside pyvisa, in one run: `python tests/bench_visa.py`.

The server is a process of its own, so that it shares no interpreter lock with the client.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.scpi import Scpi
from joulemeter.transport.scpidevice import ScpiDevice
from joulemeter.transport.scpiserve import Face, serve_scpi
from joulemeter.transport.visa import open_session

BYTES = 24_000_000
TIMEOUT_S = 60.0
Read = Callable[[], NDArray[np.uint8]]


def payload(count: int) -> bytes:
    """Random bytes, one in 256 of them a line feed."""
    return np.random.default_rng(7).integers(0, 256, count, dtype=np.uint8).tobytes()


class Scope(ScpiDevice):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.block = f"#9{count:09d}".encode() + payload(count)

    def answer(self, command: str) -> bytes | None:
        return self.block if command == "DATA?" else super().answer(command)


def serve(count: int) -> None:
    """Until the one who started it closes standard input."""
    over = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=watch, daemon=True).start()
    faces = [Face(kind=kind) for kind in ("socket", "vxi11", "hislip", "vicp")]
    serve_scpi(
        Scope(count), faces, lambda where: print(*(f"{k}={v}" for k, v in where.items()), flush=True), over.is_set
    )


@contextlib.contextmanager
def served(count: int) -> Iterator[dict[str, str]]:
    command = [sys.executable, __file__, "serve", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            pairs = (pair.partition("=") for pair in server.stdout.readline().split())
            yield {kind: address for kind, _, address in pairs}
        finally:
            server.stdin.close()


@contextlib.contextmanager
def ours(address: str) -> Iterator[Read]:
    with Scpi(open_session(address), timeout_s=TIMEOUT_S) as scpi:
        yield lambda: scpi.ask_block("DATA?")


@contextlib.contextmanager
def theirs(address: str) -> Iterator[Read]:
    """The call of pyvisa's that reads a block into an array. On a raw socket it never ends without a character."""
    resource: Any = (
        importlib.import_module("pyvisa")
        .ResourceManager("@py")
        .open_resource(
            address,
            read_termination="\n" if address.endswith("SOCKET") else None,
            write_termination="\n",
            timeout=TIMEOUT_S * 1e3,
            chunk_size=1_000_003,
        )
    )
    with contextlib.closing(resource):
        yield lambda: resource.query_binary_values("DATA?", datatype="B", container=np.array)


def megabytes_per_s(reads: dict[str, Read], count: int, repeats: int) -> dict[str, float]:
    """Medians, after one read of each that is compared byte by byte; in turn, so that a busy moment hits all."""
    digest = hashlib.sha256(payload(count)).hexdigest()
    taken: dict[str, list[float]] = {name: [] for name in reads}
    for turn in range(repeats + 1):
        for name, read in reads.items():
            start = time.perf_counter()
            got = read()
            seconds = time.perf_counter() - start
            if turn:
                taken[name].append(seconds)
            elif hashlib.sha256(got.astype(np.uint8).tobytes()).hexdigest() != digest:
                raise AssertionError(f"{name} read something else")
    return {name: count / 1e6 / statistics.median(seconds) for name, seconds in taken.items()}


def rows(count: int, repeats: int, faces: tuple[str, ...]) -> dict[tuple[str, str], float]:
    """MB/s by (face, reader)."""
    found: dict[tuple[str, str], float] = {}
    with served(count) as where:
        for face in faces:
            with contextlib.ExitStack() as held:
                reads = {"joulemeter": held.enter_context(ours(where[face]))}
                if face != "vicp":
                    reads["pyvisa"] = held.enter_context(theirs(where[face]))
                found |= {(face, name): speed for name, speed in megabytes_per_s(reads, count, repeats).items()}
    return found


def main() -> None:
    pyvisa, pyvisa_py = (version(name) for name in ("pyvisa", "pyvisa-py"))
    speeds = rows(BYTES, 5, ("socket", "vxi11", "hislip", "vicp"))
    print(f"# A block of {BYTES / 1e6:g} MB over loopback, one run\n")
    print(
        f"MB/s, medians, beside `query_binary_values` with a numpy container of PyVISA {pyvisa} and "
        f"PyVISA-py {pyvisa_py}; every first read was compared byte by byte. Read the ratio, not the "
        "rates: a real instrument's own limit is 1 to 30 MB/s.\n"
    )
    print("| wire | joulemeter | pyvisa | ratio |\n|---|---|---|---|")
    for face in ("socket", "vxi11", "hislip", "vicp"):
        mine, other = speeds[face, "joulemeter"], speeds.get((face, "pyvisa"))
        rest = "| |" if other is None else f"| {other:.0f} | {mine / other:.1f} |"
        print(f"| {face} | {mine:.0f} {rest}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
