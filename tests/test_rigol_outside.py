"""Programs of others against the simulated Rigol: they know nothing of this project, and see what it draws."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter import registry
from joulemeter.errors import UsageError
from joulemeter.instrument import Options
from joulemeter.scope.bench import OFFSET_DIVISIONS
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import MessageDevice
from joulemeter.transport.scpiserve import Face, serving

pytestmark = pytest.mark.outside

RIGOL = registry.instrument("rigol")
PYTHON = Path(os.environ.get("JOULEMETER_DS1054Z") or sys.executable)
SIGROK = shutil.which("sigrok-cli")
needs_ds1054z = pytest.mark.skipif(
    str(PYTHON) == sys.executable and importlib.util.find_spec("ds1054z") is None,
    reason="needs ds1054z, or JOULEMETER_DS1054Z as an interpreter that has it",
)
needs_sigrok = pytest.mark.skipif(SIGROK is None, reason="sigrok-cli is not installed")

# 12 mA for 1.129 ms, 2 mA for the rest of 5 ms, on 1 ohm; the input shows 10 mV to the division.
WIDTH_S, HIGH_V, LOW_V, SCALE_V = 1.129e-3, 12e-3, 2e-3, 10e-3
OFFSET_V = OFFSET_DIVISIONS * SCALE_V

# A single record of the whole memory, as that package's own documentation takes it.
CLIENT = """
import sys, time
from ds1054z import DS1054Z
scope = DS1054Z("127.0.0.1")
print(scope.vendor, scope.product, scope.serial, scope.displayed_channels, sep="|")
scope.memory_depth = 600000
print(scope.memory_depth)
scope.single()
time.sleep(0.3)
while scope.running:
    time.sleep(0.02)
for channel in ("CHAN1", "CHAN2"):
    samples = scope.get_waveform_samples(channel, mode="RAW")
    told = scope.waveform_preamble_dict
    print(told["xinc"], told["xorig"], *samples)
"""


def simulated(**settings: str) -> MessageDevice:
    made = RIGOL.simulate(parse_load(RIGOL.INFO.load), Options(settings=settings))
    assert isinstance(made, MessageDevice)
    return made


def sees_the_pulse(line: NDArray[np.float64], shunt: NDArray[np.float64], interval_s: float, edge_s: float) -> None:
    """The first pulse on the trigger line: how wide, and the voltage of the shunt in it and before it."""
    high = line > 1.65
    rise = int(np.argmax(high))
    fall = rise + int(np.argmin(high[rise:]))
    assert abs((fall - rise) * interval_s - WIDTH_S) <= edge_s
    assert float(line[rise:fall].mean()) == pytest.approx(3.3, rel=0.03)
    inside, before = shunt[rise + 2 : fall - 2].mean(), shunt[: rise - 2].mean()
    assert float(inside) - OFFSET_V == pytest.approx(HIGH_V, rel=0.01)
    assert float(before) - OFFSET_V == pytest.approx(LOW_V, rel=0.05)
    assert float(inside - before) == pytest.approx(HIGH_V - LOW_V, rel=0.01)


@needs_ds1054z
def test_ds1054z_reads_the_deep_memory() -> None:
    """By VXI-11, whose port it asks of a portmapper: three pages of each of two inputs, at 100 MHz."""
    try:
        with serving(simulated(), "vxi11", Face(kind="portmapper", port=111)):
            done = subprocess.run([str(PYTHON), "-c", CLIENT], capture_output=True, text=True, timeout=60, check=False)
    except UsageError as error:
        pytest.skip(error.what)
    assert done.returncode == 0, done.stderr
    who, depth, *rows = done.stdout.splitlines()
    assert who == "RIGOL TECHNOLOGIES|DS1054Z|SIM00000001|['CHAN1', 'CHAN2']"
    assert depth == "600000"
    line, shunt = (np.array(row.split(), np.float64) for row in rows)
    # 6 ms around 2 ms after the trigger, and 0.5 ms before it.
    assert tuple(line[:2]) == (1e-8, -5e-4)
    assert len(line) == len(shunt) == 600_002
    sees_the_pulse(line[2:], shunt[2:], 1e-8, 1e-6)


@pytest.fixture(scope="module")
def sigrok() -> list[str]:
    assert SIGROK is not None
    return [SIGROK, "--driver"]


@needs_sigrok
def test_sigrok_finds_it(sigrok: list[str]) -> None:
    with serving(simulated(), "socket") as where:
        port = where["socket"].split("::")[2]
        done = subprocess.run(
            [*sigrok, f"rigol-ds:conn=tcp-raw/127.0.0.1/{port}", "--scan"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert "Rigol DS1054Z 00.04.04.SP3 [S/N: SIM00000001] with 4 channels: CH1 CH2 CH3 CH4" in done.stdout


@needs_sigrok
def test_sigrok_shows_the_screen(sigrok: list[str]) -> None:
    """Live: 1200 points of 12 divisions of 500 us, in the digits that it prints. It exits with whatever it likes."""
    with serving(simulated(), "socket") as where:
        port = where["socket"].split("::")[2]
        done = subprocess.run(
            [*sigrok, f"rigol-ds:conn=tcp-raw/127.0.0.1/{port}", "--frames", "1", "--channels", "CH1,CH2"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    traces = {
        name: np.array(
            [
                float(value) * {"": 1.0, "m": 1e-3, "u": 1e-6}[unit]
                for value, unit in re.findall(rf"^{name}: (-?[\d.]+) (m|u|)V$", done.stdout, re.MULTILINE)
            ]
        )
        for name in ("CH1", "CH2")
    }
    assert [len(trace) for trace in traces.values()] == [1200, 1200], done.stderr
    sees_the_pulse(traces["CH1"], traces["CH2"], 5e-6, 7.5e-6)


def test_the_simulator_is_a_program_of_its_own(tmp_path: Path) -> None:
    """What `joulemeter simulate` announces is what a client of VISA opens."""
    pyvisa = pytest.importorskip("pyvisa")
    pytest.importorskip("pyvisa_py")
    command = [sys.executable, "-m", "joulemeter", "simulate", "rigol", "--until-eof", "--set", "model=DHO804"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        resource = pyvisa.ResourceManager("@py").open_resource(
            address, timeout=5000, read_termination="\n", write_termination="\n"
        )
        assert resource.query("*IDN?") == "RIGOL TECHNOLOGIES,DHO804,SIM00000001,00.01.03.00.04"
        resource.write(":STOP")
        resource.write(":WAV:SOUR CHAN2;:WAV:MODE RAW;:WAV:FORM WORD")
        fields = [float(field) for field in resource.query(":WAV:PRE?").split(",")]
        depth = int(float(resource.query(":ACQ:SRAT?")) * fields[4] * 1000)
        codes = resource.query_binary_values(
            f":WAV:STAR 1;:WAV:STOP {depth};:WAV:DATA?", datatype="H", container=np.array
        )
        resource.close()
        process.stdin.close()
        assert process.wait(10) == 0
    volts = (codes - fields[8] - fields[9]) * fields[7]
    assert len(volts) == depth
    assert float(volts.min()) == pytest.approx(LOW_V + OFFSET_V, abs=2e-3)
