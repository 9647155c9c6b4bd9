"""Simulated meters and boards in a process of their own: what `--simulate` starts and `joulemeter simulate` serves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

from joulemeter import registry, units
from joulemeter.errors import BY_EXIT_CODE, IncompleteError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.synthetic import Draw, Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.scpidevice import BentDevice, MessageDevice
from joulemeter.transport.scpiserve import Face, serve_scpi
from joulemeter.transport.serve import serve_ptys, serve_tcp
from joulemeter.workload import SimulatedBoard

START_S = 20.0

# Drawn by a board without a meter when nobody names a load: an inference of 20 ms every 100 ms, then a doze.
DEFAULT_LOAD = "8mA/20ms/d0,250uA/80ms"
# What a simulated board runs on where the meter does not supply it.
BOARD_V = 3.0
# What the line with the board's address begins with, where a board is served beside a meter.
BOARD = "board: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A simulated board: the kind of workload that talks to it, and what that kind's `simulate` is given."""

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)


def describe(load: Load, supply_v: float | None) -> list[str]:
    """The closed-form truth about a load, as lines of `name: value`."""
    lines = [f"load: {load.name}", f"mean current: {units.show(load.mean_a, 'A', 7)}"]
    for line in range(8):
        charge_c = load.pulse_charge_c(line)
        if charge_c is None:
            continue
        lines.append(f"charge per d{line} pulse: {units.show(charge_c, 'C', 7)}")
        lines.append(f"duration of d{line} pulse: {units.show(load.pulse_duration_s(line), 's', 7)}")
        if supply_v is not None:
            lines.append(f"energy per d{line} pulse at {supply_v:g} V: {units.show(charge_c * supply_v, 'J', 7)}")
    return lines


def serve(
    key: str | None,
    *,
    load: str | None,
    faults: str | None,
    settings: Mapping[str, str],
    tcp: str | None,
    supply_v: float | None,
    fast: bool,
    announce: Callable[[str], None],
    stopped: Callable[[], bool],
    board: Board | None = None,
) -> None:
    """Serve a simulated meter, a board, or a meter that sees the board's current and lines, until stopped.

    The first line announced is the meter's address (the board's where there is no meter); the board's and the load
    follow. Raises NotFoundError, UsageError.
    """
    usual = DEFAULT_LOAD if key is None or board is not None else registry.instrument(key).INFO.load
    drawn = parse_load(load or usual)
    seen: Draw = drawn
    devices: list[Device] = []
    if board is not None:
        simulated = simulated_board(board, drawn)
        seen = simulated.timeline
        devices.append(simulated.device)
    if key is not None:
        module = registry.instrument(key)
        meter = module.simulate(seen, Options(settings=settings))
        if module.INFO.faces:
            beside = devices[0] if devices else None
            _serve_bench(module.INFO.faces, meter, drawn, faults, tcp, supply_v, announce, stopped, beside)
            return
        devices.append(FaultyDevice(meter, parse_faults(faults or "")))

    def introduce(addresses: Sequence[str]) -> None:
        announce(addresses[-1])
        if len(addresses) > 1:
            announce(f"{BOARD}{addresses[0]}")
        for line in describe(drawn, supply_v):
            announce(line)

    place = None if tcp is None else _tcp(tcp)
    if place is None or len(devices) > 1:
        # Of a meter and its board the meter has the address that was asked for.
        serve_ptys(devices, introduce, stopped, paced=not fast, tcp=place)
    else:
        serve_tcp(devices[0], place, lambda address: introduce([address]), stopped, paced=not fast)


def _serve_bench(
    kinds: Sequence[str],
    meter: Device,
    load: Load,
    faults: str | None,
    tcp: str | None,
    supply_v: float | None,
    announce: Callable[[str], None],
    stopped: Callable[[], bool],
    board: Device | None,
) -> None:
    """A bench instrument on all the wires that it has, and the board that it sees; `tcp` is where the first wire is."""
    if not isinstance(meter, MessageDevice):
        raise UsageError("This simulator does not answer in messages.", "It needs a ScpiDevice.")
    host, port = _tcp(tcp or "0")
    faces = [Face(kind=kind, host=host, port=0 if place else port) for place, kind in enumerate(kinds)]

    bent = BentDevice(meter, timed=parse_faults(faults or ""))
    if board is None:
        path, served, began_s = None, cast(Device, bent), None
    else:
        turn, began_s = threading.Lock(), time.monotonic()
        path, served = _beside(_Turns(board, turn), began_s, stopped), _Taking(bent, turn)

    def introduce(addresses: Mapping[str, str]) -> None:
        announce(addresses[kinds[0]])
        if path is not None:
            announce(f"{BOARD}{path}")
        for kind in kinds[1:]:
            announce(f"{kind}: {addresses[kind]}")
        for line in describe(load, supply_v):
            announce(line)

    serve_scpi(served, faces, introduce, stopped, started_s=began_s)


class _Turns:
    """A device that shares its load with one that is served by another thread."""

    def __init__(self, device: Device, turn: threading.Lock) -> None:
        self._device = device
        self._turn = turn

    def receive(self, data: bytes) -> None:
        with self._turn:
            self._device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        with self._turn:
            return self._device.transmit(now_s)


class _Taking(_Turns):
    """... and that answers in messages."""

    def __init__(self, device: MessageDevice, turn: threading.Lock) -> None:
        super().__init__(device, turn)
        self._messages = device

    @property
    def ended(self) -> bool:
        return self._messages.ended

    def clear(self) -> None:
        with self._turn:
            self._messages.clear()

    def status_byte(self) -> int:
        return self._messages.status_byte()


def _beside(board: Device, began_s: float, stopped: Callable[[], bool]) -> str:
    """The board on a pseudo-terminal, in a thread of its own; its path."""
    ready, paths = threading.Event(), [""]

    def introduce(found: Sequence[str]) -> None:
        paths[0] = found[0]
        ready.set()

    serving = threading.Thread(
        target=serve_ptys, args=([board], introduce, stopped), kwargs={"started_s": began_s}, daemon=True
    )
    serving.start()
    ready.wait(START_S)
    return paths[0]


def _tcp(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not a TCP port.", "Write PORT or HOST:PORT; port 0 picks a free one.")
    return host or "127.0.0.1", int(port)


def simulated_board(board: Board, load: Load) -> SimulatedBoard:
    """Raises UsageError for a kind of workload that runs on no board."""
    simulate = getattr(registry.workload(board.kind), "simulate", None)
    if simulate is None:
        raise UsageError(f"A {board.kind} workload has no simulated board.", "It runs on a real one, or on this host.")
    made: SimulatedBoard = simulate(load, board.options)
    return made


class SimulatedMeter:
    """A `joulemeter simulate` of our own, ended with this process. `board` is its board's address, where it has one."""

    def __init__(
        self,
        key: str,
        *,
        load: str | None = None,
        faults: str | None = None,
        settings: Mapping[str, str] | None = None,
        board: Board | None = None,
    ) -> None:
        command = [sys.executable, "-P", "-m", "joulemeter", "simulate", key, "--until-eof"]
        info = registry.instrument(key).INFO if key in registry.keys(registry.INSTRUMENTS) else None
        networked = info is not None and (info.transport == "tcp" or bool(info.faces))
        command += ["--pty"] if os.name == "posix" and not networked else ["--tcp", "127.0.0.1:0"]
        command += ["--load", load] if load else []
        command += ["--faults", faults] if faults else []
        command += [word for name, value in (settings or {}).items() for word in ("--set", f"{name}={value}")]
        if board is not None:
            command += ["--board", board.kind]
            command += [word for name, value in board.options.items() for word in ("--board-set", f"{name}={value}")]
        # A group of its own, so that Ctrl-C does not unplug the meter while the recording is being ended.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.address = ""
        self.board = ""
        self._has_board = board is not None

    def __enter__(self) -> Self:
        self.address = self._line()
        if self._has_board:
            self.board = self._line().removeprefix(BOARD)
        return self

    def _line(self) -> str:
        got: list[str] = []
        pipe = self._process.stdout
        if pipe is not None:
            waiter = threading.Thread(target=lambda: got.append(pipe.readline().strip()), daemon=True)
            waiter.start()
            waiter.join(START_S)
        if not got or not got[0]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            self._process.kill()
            _, said = self._process.communicate()
            # It is this program that refused, so its own words and exit code say why.
            kind = BY_EXIT_CODE.get(self._process.returncode, IncompleteError)
            why = " ".join(said.split()).removeprefix("joulemeter: ") or "It said nothing."
            raise kind("The simulation did not start.", why)
        return got[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
