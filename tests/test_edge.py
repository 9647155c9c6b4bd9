from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from joulemeter.errors import AccessError, IncompleteError, MissingExtraError, NotFoundError, UsageError
from joulemeter.workload import edge
from joulemeter.workload.edge import ControlLine, GpioLine, measure_cost, parse_edge
from joulemeter.workload.stamping import Around, stamp

# --- how it is written


@pytest.mark.parametrize(
    ("text", "chip", "line", "level"),
    [
        ("gpio:gpiochip0/17", "/dev/gpiochip0", "17", "high"),
        ("gpio:/dev/gpiochip4/GPIO17,low", "/dev/gpiochip4", "GPIO17", "low"),
        ("gpio:gpiochip1/3,high", "/dev/gpiochip1", "3", "high"),
        ("gpio:GPIO17", None, "GPIO17", "high"),
    ],
)
def test_parse_gpio(text: str, chip: str | None, line: str, level: str) -> None:
    found = parse_edge(text)
    assert isinstance(found, GpioLine)
    assert (found.chip and str(found.chip), found.line, found.level, found.text) == (chip, line, level, text)


@pytest.mark.parametrize(
    ("text", "name", "port", "level"),
    [
        ("rts:/dev/ttyUSB0", "rts", "/dev/ttyUSB0", "low"),
        ("dtr:COM3,high", "dtr", "COM3", "high"),
        ("rts:rfc2217://host:4000,low", "rts", "rfc2217://host:4000", "low"),
    ],
)
def test_parse_control_line(text: str, name: str, port: str, level: str) -> None:
    found = parse_edge(text)
    assert isinstance(found, ControlLine)
    assert (found.name, found.port, found.level) == (name, port, level)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an edge line"),
        ("gpio", "is not an edge line"),
        ("gpio:", "is not an edge line"),
        ("cts:/dev/ttyUSB0", "is not an edge line"),
        ("gpio:gpiochip0/17,lo", "is not an edge line"),
        ("gpio:gpiochip0/17,", "no level behind the comma"),
        ("gpio:gpiochip0/", "names no line"),
        ("gpio:/17", "names no line"),
        ("gpio:17", r"does not say of which chip.*gpio:gpiochip0/17"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_edge(text)


# --- RTS and DTR: pyserial's loop:// has RTS wired to CTS and DTR to DSR


@pytest.mark.parametrize(("name", "witness"), [("rts", "cts"), ("dtr", "dsr")])
@pytest.mark.parametrize("level", ["low", "high"])
def test_control_lines_on_pyserials_loop(name: str, witness: str, level: str) -> None:
    """A TTL adaptor's pin is low while its line is asserted (RTS# of the FT232R's data sheet)."""
    line = parse_edge(f"{name}:loop://,{level}")
    assert isinstance(line, ControlLine)
    line.open()
    port = line._serial

    def seen() -> str:
        return "low" if getattr(port, witness) else "high"

    rest = {"low": "high", "high": "low"}[level]
    assert seen() == rest
    for _ in range(3):
        line.begin()
        assert seen() == level
        line.end()
        assert seen() == rest
    line.begin()
    line.close()
    assert bool(port._rts_state if name == "rts" else port._dtr_state) == (rest == "low")
    line.close()


def test_around_windows() -> None:
    with parse_edge("rts:loop://") as line:
        assert isinstance(line, ControlLine)
        port = line._serial
        inside: list[bool] = []
        stamps = stamp(lambda: inside.append(port.cts), 3, 2, Around(edge=line))
        assert len(stamps) == 3 and inside == [True] * 6 and not port.cts

        def fails() -> None:
            raise RuntimeError("model")

        with pytest.raises(RuntimeError):
            stamp(fails, 1, 1, Around(edge=line))
        assert not port.cts


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)\\(\\) is deprecated:DeprecationWarning")
def test_over_the_network() -> None:
    """pyserial's own RFC 2217 client against pyserial's own server, whose port is a loop."""
    import serial
    from serial.rfc2217 import PortManager

    far = serial.serial_for_url("loop://", timeout=0)
    changes: list[bool] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):

            class Writer:
                write = staticmethod(connection.sendall)

            manager = PortManager(far, Writer())
            while data := connection.recv(1024):
                for _ in manager.filter(data):
                    pass
                changes.append(far.rts)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    line = parse_edge(f"rts:rfc2217://127.0.0.1:{listening.getsockname()[1]}").open()
    assert not far.rts
    line.begin()
    assert far.rts
    line.end()
    assert not far.rts
    cost = measure_cost(line, 3)
    assert cost.pairs == 3 and not far.rts
    line.begin()
    line.close()
    assert not far.rts
    server.join(5)
    listening.close()
    assert changes


def test_a_pseudo_terminal_has_no_such_line() -> None:
    ours, theirs = os.openpty()
    try:
        for level in ("low", "high"):
            with pytest.raises(UsageError, match="has no RTS line"):
                parse_edge(f"rts:{os.ttyname(theirs)},{level}").open()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_line_that_rests_low_is_not_dropped_on_close() -> None:
    import termios

    ours, theirs = os.openpty()

    class Port:
        fd = theirs

    try:
        attributes = termios.tcgetattr(theirs)
        attributes[2] |= termios.HUPCL
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        edge._keep_lines_on_close(Port())
        assert not termios.tcgetattr(theirs)[2] & termios.HUPCL
    finally:
        os.close(ours)
        os.close(theirs)


def test_ports_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="There is no port /dev/nowhere"):
        parse_edge("rts:/dev/nowhere").open()
    with pytest.raises(UsageError, match="nosuch://x is not an address"):
        parse_edge("rts:nosuch://x").open()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotFoundError, match="cannot be opened"):
        parse_edge(f"dtr:rfc2217://127.0.0.1:{port}").open()
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(NotFoundError, match="cannot be opened as a serial port"):
        parse_edge(f"rts:{plain}").open()

    import serial

    for code, message in ((errno.EACCES, r"No permission.*usermod -aG dialout"), (errno.EBUSY, "in use by another")):

        def refuse(*_: object, code: int = code, **__: object) -> None:
            raise serial.SerialException(code, f"could not open port: {os.strerror(code)}")

        monkeypatch.setattr(serial, "serial_for_url", refuse)
        with pytest.raises(AccessError, match=message):
            parse_edge("rts:/dev/ttyUSB0").open()


def test_an_adaptor_that_is_pulled() -> None:
    class Pulled(ControlLine):
        def _take(self) -> tuple[Callable[[], object], Callable[[], object]]:
            def call() -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            return call, call

        def _release(self) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    line = Pulled("rts:/dev/ttyUSB0", "low", "rts", "/dev/ttyUSB0").open()
    for toggle in (line.begin, line.end):
        with pytest.raises(IncompleteError, match=r"rts:/dev/ttyUSB0 was lost: Input/output error"):
            toggle()
    line.close()


# --- GPIO: the calls of gpiod 2 on a chip that this file keeps


class Value(Enum):
    INACTIVE = 0
    ACTIVE = 1


class Direction(Enum):
    AS_IS = 1
    INPUT = 2
    OUTPUT = 3


class Bank:
    """The pins of one chip: names, levels as driven, who has them, and every change."""

    def __init__(self, names: dict[int, str], size: int = 28) -> None:
        self.names = names
        self.size = size
        self.levels: dict[int, int] = {}
        self.held: dict[int, str] = {}
        self.changes: list[tuple[int, int]] = []
        self.refusal: int | None = None

    def drive(self, offset: int, level: int) -> None:
        self.levels[offset] = level
        self.changes.append((offset, level))


def fake_gpiod(banks: dict[str, Bank]) -> ModuleType:
    """The part of gpiod 2 in use, after its documentation: names, parameters, and which exception when."""

    class LineSettings:
        def __init__(
            self,
            direction: Direction = Direction.AS_IS,
            active_low: bool = False,
            output_value: Value = Value.INACTIVE,
        ) -> None:
            self.direction, self.active_low, self.output_value = direction, active_low, output_value

    class LineRequest:
        def __init__(self, bank: Bank, settings: dict[int, LineSettings]) -> None:
            self.bank, self.settings = bank, settings
            self.released = False
            self.set_values({offset: setting.output_value for offset, setting in settings.items()})

        def set_values(self, values: dict[int, Value]) -> None:
            if self.released:
                raise RuntimeError("GPIO lines have been released")
            for line, value in values.items():
                self.bank.drive(line, value.value ^ self.settings[line].active_low)

        def release(self) -> None:
            self.released = True
            for offset in self.settings:
                del self.bank.held[offset]

    class Chip:
        def __init__(self, path: str) -> None:
            if path not in banks:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self.bank = banks[path]
            if self.bank.refusal is not None:
                raise OSError(self.bank.refusal, os.strerror(self.bank.refusal))

        def __enter__(self) -> Chip:
            return self

        def __exit__(self, *_: object) -> None: ...

        def line_offset_from_id(self, id: str | int) -> int:  # noqa: A002  as it is called there
            for offset, name in self.bank.names.items():
                if name == id:
                    return offset
            try:
                offset = int(id)
            except ValueError:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            if offset >= self.bank.size:
                raise ValueError("line offset of out range")
            return offset

        def request_lines(self, config: dict[int, LineSettings], consumer: str | None = None) -> LineRequest:
            for offset, settings in config.items():
                assert settings.direction is Direction.OUTPUT
                if offset in self.bank.held:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self.bank.held |= dict.fromkeys(config, consumer or "?")
            return LineRequest(self.bank, config)

    module = ModuleType("gpiod")
    line = ModuleType("gpiod.line")
    line.Value, line.Direction = Value, Direction  # type: ignore[attr-defined]
    for name, value in {
        "line": line,
        "Chip": Chip,
        "LineSettings": LineSettings,
        "LineRequest": LineRequest,
        "is_gpiochip_device": lambda path: path in banks,
        "request_lines": Chip.request_lines,
    }.items():
        setattr(module, name, value)
    return module


@pytest.fixture
def banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Bank]:
    """gpiochip0 as on a Raspberry Pi, gpiochip1 with a name that both have, and gpiochip4 a link to the first."""
    chips = {"gpiochip0": {17: "GPIO17", 2: "SHARED"}, "gpiochip1": {0: "SHARED", 3: "LED"}}
    banks = {str(tmp_path / name): Bank(names) for name, names in chips.items()}
    for path in banks:
        Path(path).touch()
    (tmp_path / "gpiochip4").symlink_to(tmp_path / "gpiochip0")
    (tmp_path / "gpiochip9").touch()
    monkeypatch.setattr(edge, "DEVICES", tmp_path)
    monkeypatch.setitem(sys.modules, "gpiod", fake_gpiod(banks))
    return banks


@pytest.mark.parametrize("text", ["gpio:gpiochip0/17", "gpio:gpiochip0/GPIO17", "gpio:GPIO17"])
@pytest.mark.parametrize(("suffix", "active"), [("", 1), (",high", 1), (",low", 0)])
def test_gpio(banks: dict[str, Bank], text: str, suffix: str, active: int) -> None:
    line = parse_edge(text + suffix)
    bank = next(iter(banks.values()))
    assert not bank.changes
    with line:
        assert bank.held == {17: "joulemeter"} and bank.levels == {17: 1 - active}
        line.begin()
        assert bank.levels == {17: active}
        line.end()
        line.begin()
    rest = 1 - active
    assert bank.changes == [(17, level) for level in (rest, active, rest, active, rest)]
    assert not bank.held
    line.close()
    assert len(bank.changes) == 5


def test_gpio_errors(banks: dict[str, Bank], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(text: str, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            parse_edge(text).open()

    refused("gpio:gpiochip7/1", NotFoundError, "There is no GPIO chip .*gpiochip7.*gpiodetect")
    refused("gpio:gpiochip0/28", NotFoundError, "has no line 28.*gpioinfo -c gpiochip0")
    refused("gpio:gpiochip0/GPIO99", NotFoundError, "has no line 'GPIO99'")
    refused("gpio:GPIO99", NotFoundError, "There is no GPIO line 'GPIO99' on gpiochip0, gpiochip1")
    refused(
        "gpio:SHARED", UsageError, r"gpiochip0 and gpiochip1 each have a line 'SHARED'\. Write gpio:gpiochip0/SHARED"
    )
    bank = next(iter(banks.values()))
    bank.held[17] = "kernel"
    refused("gpio:gpiochip0/17", AccessError, "in use by another program or driver.*gpioinfo -c gpiochip0")
    del bank.held[17]
    for code in (errno.EACCES, errno.EPERM):
        bank.refusal = code
        for text in ("gpio:gpiochip0/17", "gpio:LED"):
            refused(text, AccessError, r"No permission to open .*gpiochip0\..*usermod -aG gpio \$USER.*udevadm control")
    bank.refusal = errno.ENODEV
    refused("gpio:gpiochip0/17", NotFoundError, "There is no GPIO chip")
    bank.refusal = errno.EINVAL
    refused("gpio:gpiochip0/17", NotFoundError, "cannot be made an output: Invalid argument")
    banks.clear()
    refused("gpio:GPIO17", NotFoundError, "as there is no GPIO chip")
    assert not bank.held


def test_without_gpiod(monkeypatch: pytest.MonkeyPatch) -> None:
    line = parse_edge("gpio:gpiochip0/17")
    monkeypatch.setitem(sys.modules, "gpiod", ModuleType("gpiod"))
    with pytest.raises(MissingExtraError, match=r"version 1\. .*joulemeter\[gpio\]"):
        line.open()
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(MissingExtraError, match=r"gpiod\. Install it: pip install 'joulemeter\[gpio\]'"):
        line.open()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match=r"Linux.*rts:"):
        line.open()


def test_the_fake_has_gpiods_own_parameters() -> None:
    """So that what passes here is not refused by the package."""
    real = pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    fake = fake_gpiod({})
    for name in ("Chip.__init__", "Chip.line_offset_from_id", "Chip.request_lines", "LineSettings.__init__",
                 "LineRequest.set_values", "LineRequest.release", "is_gpiochip_device"):  # fmt: skip
        pair = []
        for module in (fake, real):
            found: Any = module
            for part in name.split("."):
                found = getattr(found, part)
            pair.append(list(inspect.signature(found).parameters))
        assert set(pair[0]) <= set(pair[1]), name
    assert {value.name for value in Value} == {value.name for value in real.line.Value}
    assert {value.name for value in Direction} == {value.name for value in real.line.Direction}
    with pytest.raises(FileNotFoundError):
        real.Chip("/dev/gpiochip-nowhere")


def test_gpiod_itself_says_that_there_is_no_such_chip() -> None:
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    with pytest.raises(NotFoundError, match="There is no GPIO chip /dev/gpiochip-nowhere"):
        parse_edge("gpio:gpiochip-nowhere/1").open()
    with pytest.raises(NotFoundError, match="There is no GPIO chip /dev/null"):
        parse_edge("gpio:null/1").open()


# --- GPIO: the package itself, on a kernel interface in user space (gpio_kernel.c)


def through_gpiod(folder: Path, *texts: str, **environment: str) -> tuple[list[str], list[str]]:
    """What each line answers, and what the emulated kernel saw."""
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    if shutil.which("gcc") is None or not Path("/usr/include/linux/gpio.h").exists():
        pytest.skip("there is no C compiler with the kernel's headers")
    kernel, log, chip = folder / "kernel.so", folder / "log", folder / "dev" / "gpiochip0"
    chip.parent.mkdir(exist_ok=True)
    try:
        if not chip.exists():
            os.mknod(chip, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            chip.read_bytes()
    except PermissionError:
        pytest.skip("only root can make a device file that works")
    source = Path(__file__).with_name("gpio_kernel.c")
    strict = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *strict, "-o", kernel, source, "-ldl"], check=True)  # noqa: S607
    program = (
        "import sys, pathlib\nfrom joulemeter.errors import JouleMeterError\nfrom joulemeter.workload import edge\n"
        "edge.DEVICES = pathlib.Path(sys.argv[1])\n"
        "for text in sys.argv[2:]:\n"
        "    try:\n"
        "        with edge.parse_edge(text) as line: line.begin(); line.end(); line.begin()\n"
        "        print('good')\n"
        "    except JouleMeterError as error: print(type(error).__name__, error)\n"
    )
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", program, str(chip.parent), *texts],
        capture_output=True,
        text=True,
        env=os.environ | {"LD_PRELOAD": str(kernel), "JM_GPIO_LOG": str(log)} | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), log.read_text().splitlines()


@pytest.mark.outside
@pytest.mark.parametrize(
    ("text", "active"), [("gpio:gpiochip0/3", 1), ("gpio:gpiochip0/LED,low", 0), ("gpio:LED,high", 1)]
)
def test_gpiod_drives_the_pin(tmp_path: Path, text: str, active: int) -> None:
    answers, seen = through_gpiod(tmp_path, text)
    assert answers == ["good"]
    rest = 1 - active
    assert seen == ["taken 3", *(f"pin 3 {level}" for level in (rest, active, rest, active, rest)), "released 3"]


@pytest.mark.outside
def test_what_gpiod_refuses(tmp_path: Path) -> None:
    texts = ("gpio:gpiochip0/4", "gpio:gpiochip0/10", "gpio:gpiochip0/XX", "gpio:XX")
    answers, seen = through_gpiod(tmp_path, *texts)
    expected = ("AccessError Line 4 .* in use", "NotFoundError .* no line 10", "NotFoundError .* no line 'XX'",
                "NotFoundError There is no GPIO line 'XX' on gpiochip0")  # fmt: skip
    assert len(answers) == 4 and all(map(re.match, expected, answers)), answers
    assert not seen
    answers, _ = through_gpiod(tmp_path, "gpio:gpiochip0/3", "gpio:LED", JM_GPIO_DENIED="1")
    assert len(answers) == 2 and all(answer.startswith("AccessError No permission") for answer in answers)


# --- what it costs


def test_cost_of_a_line_with_known_delays() -> None:
    """`begin` sleeps 2 ms and `end` 4 ms: a call lasts at least as long, and the pair as both."""

    class Slow(ControlLine):
        def _take(self) -> tuple[Callable[[], object], Callable[[], object]]:
            return lambda: time.sleep(0.002), lambda: time.sleep(0.004)

        def _release(self) -> None: ...

    with Slow("rts:slow", "low", "rts", "slow") as line:
        cost = measure_cost(line, 20)
    assert 0.002 <= cost.begin.median_s <= cost.begin.p99_s <= cost.begin.max_s
    assert cost.end.median_s >= 0.004
    assert cost.begin.median_s < cost.end.median_s
    assert cost.empty_pair.median_s >= 0.006
    assert 0 <= cost.clock_s < 0.002
    assert cost.u_edge_s == pytest.approx(max(cost.begin.p99_s, cost.end.p99_s) / 12**0.5)
    assert cost.excess_s[0] == 0 and cost.excess_s[1] == pytest.approx(cost.begin.p99_s + cost.end.p99_s)
    told = json.loads(json.dumps(cost.to_dict()))
    assert told["line"] == "rts:slow" and told["pairs"] == 20 and told["distribution"] == "rectangular"
    assert told["u_edge_s"] == cost.u_edge_s and told["begin"]["jitter_s"] == cost.begin.jitter_s


def test_cost_statistics() -> None:
    """Of the whole numbers from 1 ns to 1001 ns: the quantiles are known."""
    import numpy as np

    cost = edge._cost(np.arange(1, 1002, dtype=np.int64))
    assert cost.median_s == pytest.approx(501e-9)
    assert cost.p99_s == pytest.approx(991e-9)
    assert cost.max_s == pytest.approx(1001e-9)
    assert cost.jitter_s == pytest.approx(900e-9)


def test_measuring_leaves_the_line_inactive(banks: dict[str, Bank]) -> None:
    bank = next(iter(banks.values()))
    with parse_edge("gpio:GPIO17") as line:
        cost = measure_cost(line, 10)
        assert bank.levels == {17: 0}
        # At rest; 20 pairs; the last `end` once more.
        assert [level for _, level in bank.changes] == [0] + [1, 0] * 20 + [0]
        assert cost.level == "high" and cost.begin.median_s > 0
        edge.empty_pairs(line, 3, 0)
        assert [level for _, level in bank.changes[42:]] == [1, 0] * 3 + [0]
        with pytest.raises(UsageError, match="do not show a jitter"):
            measure_cost(line, 1)


# --- what a program leaves behind

_PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_edge as t
from joulemeter.workload import edge

class Told(t.Bank):
    def drive(self, offset, level):
        print(level, flush=True)

edge.DEVICES = Path({folder!r})
sys.modules["gpiod"] = t.fake_gpiod({{{chip!r}: Told({{}})}})
line = edge.parse_edge("gpio:gpiochip0/17").open()
line.begin()
{then}
"""


@pytest.mark.parametrize(("then", "code"), [("sys.exit(3)", 3), ("1 / 0", 1), ("time.sleep(60)", None)])
def test_a_program_that_ends_leaves_it_inactive(tmp_path: Path, then: str, code: int | None) -> None:
    chip = tmp_path / "gpiochip0"
    chip.touch()
    source = _PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path), chip=str(chip), then=then)
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout is not None
        assert [program.stdout.readline().strip() for _ in range(2)] == ["0", "1"]
        if code is None:
            program.send_signal(signal.SIGINT)
        assert program.stdout.read().split() == ["0"]
        assert program.wait(10) == (-signal.SIGINT if code is None else code)


def test_importing_it_needs_neither_package() -> None:
    source = "import sys; import joulemeter.workload.edge; print(*{'serial', 'gpiod'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
