"""A simulated instrument in a process of its own: what `--simulate` starts and what `joulemeter simulate` serves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from joulemeter import registry, units
from joulemeter.errors import IncompleteError, UsageError
from joulemeter.instrument import Options
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.serve import serve_pty, serve_tcp

START_S = 20.0

# Drawn when nobody names a load: an inference of 20 ms every 100 ms, then a doze.
DEFAULT_LOAD = "8mA/20ms/d0,250uA/80ms"


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
    key: str,
    *,
    load: str | None,
    faults: str | None,
    settings: Mapping[str, str],
    tcp: str | None,
    supply_v: float | None,
    fast: bool,
    announce: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Serve a simulated instrument until stopped. The first line announced is its address, the load follows."""
    module = registry.instrument(key)
    drawn = parse_load(load or DEFAULT_LOAD)
    device = FaultyDevice(module.simulate(drawn, Options(settings=settings)), parse_faults(faults or ""))

    def introduce(address: str) -> None:
        announce(address)
        for line in describe(drawn, supply_v):
            announce(line)

    if tcp is None:
        serve_pty(device, introduce, stopped, paced=not fast)
        return
    host, _, port = tcp.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{tcp!r} is not a TCP port.", "Write PORT or HOST:PORT; port 0 picks a free one.")
    serve_tcp(device, (host or "127.0.0.1", int(port)), introduce, stopped, paced=not fast)


class SimulatedMeter:
    """A `joulemeter simulate` of our own, ended with this process."""

    def __init__(self, key: str, *, load: str | None = None, faults: str | None = None) -> None:
        command = [sys.executable, "-P", "-m", "joulemeter", "simulate", key, "--until-eof"]
        command += ["--pty"] if os.name == "posix" else ["--tcp", "127.0.0.1:0"]
        command += ["--load", load] if load else []
        command += ["--faults", faults] if faults else []
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

    def __enter__(self) -> Self:
        first: list[str] = []
        pipe = self._process.stdout
        if pipe is not None:
            waiter = threading.Thread(target=lambda: first.append(pipe.readline().strip()), daemon=True)
            waiter.start()
            waiter.join(START_S)
        if not first or not first[0]:
            self._process.kill()
            _, said = self._process.communicate()
            raise IncompleteError("The simulated meter did not start.", said.strip() or "It said nothing.")
        self.address = first[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
