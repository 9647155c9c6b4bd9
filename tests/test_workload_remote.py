"""Workloads over a real SSH server on this host: both ends then have one clock, so the true offset is known."""

from __future__ import annotations

import ast
import contextlib
import getpass
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.workload import Habits, agent, cpu_governor, cpu_model, inputs, ssh
from joulemeter.workload.remote import Remote, create
from joulemeter.workload.ssh import Address, Board, parse_address

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None,
    reason="OpenSSH's server is not installed: apt install openssh-server",
)
MODEL = Path(__file__).parents[2] / "shared" / "data" / "models" / "ad01_int8.tflite"

BENCH = """
import os, time
notes = []
def infer():
    print("this must not reach the channel")
    begin = time.monotonic_ns()
    while time.monotonic_ns() - begin < 2_000_000:
        pass
    notes.append((begin, time.monotonic_ns()))
def dump():
    with open("notes.txt", "w") as file:
        file.write(repr(notes))
def broken():
    return {}["cat"]
def dies():
    os.kill(os.getpid(), 9)
def stuck():
    time.sleep(60)
def make():
    return 21
def half(state):
    assert state == 21
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server of the test's own; `home` is what it takes for the user's home folder."""

    home: Path
    config: Path
    port: int
    process: subprocess.Popen[bytes]

    def target(self, path: str = "") -> str:
        return f"ssh://board{path}"

    def workload(self, kind: str, path: str = "", **options: str) -> Remote:
        given = {"ssh": str(self.config), "python": sys.executable} | options
        return create(kind, self.target(path), {name: value for name, value in given.items() if value})

    def board(self, **more: Any) -> Board:
        return Board(Address(host="board"), **({"config": str(self.config), "python": sys.executable} | more))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert SSHD is not None
    folder = tmp_path_factory.mktemp("sshd")
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "bench.py").write_text(BENCH)
    # A login shell that talks, the last line without an end.
    (home / ".bashrc").write_text("echo 'Welcome to the board'; echo '{\"ok\": 1}'; printf 'last login: today'\n")
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nSetEnv HOME={home}\n"
    )
    host_key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"board {' '.join(host_key)}\n")
    (folder / "nobody_known").write_text("")
    common = (
        f"Port {port}\nHostName 127.0.0.1\nHostKeyAlias board\nUser {getpass.getuser()}\nIdentitiesOnly yes\n"
        f"IdentityAgent none\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n"
    )
    config = folder / "config"
    config.write_text(
        f"Host board\nUserKnownHostsFile {folder}/known_hosts\nIdentityFile {folder}/user\n{common}"
        f"Host refused\nUserKnownHostsFile {folder}/known_hosts\nIdentityFile {folder}/stranger\n{common}"
        f"Host unknown\nUserKnownHostsFile {folder}/nobody_known\nIdentityFile {folder}/user\n{common}"
    )
    if os.getuid() == 0:
        # Where the system's own service has not made it yet.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = (folder / "log").open("wb")
    with log, subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log) as process:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            process.kill()
            pytest.fail(f"sshd did not start: {(folder / 'log').read_text()}")
        yield Server(home=home, config=config, port=port, process=process)
        process.terminate()


@pytest.fixture
def opened() -> Iterator[Callable[[Remote], Remote]]:
    """Closes at the end what it was given."""
    with contextlib.ExitStack() as stack:

        def keep(workload: Remote) -> Remote:
            stack.callback(workload.close)
            return workload

        yield keep


Opened = Callable[[Remote], Remote]


# --- addresses and options


def test_addresses() -> None:
    assert parse_address("ssh://pi@raspberrypi/home/pi/kws.tflite") == Address(
        host="raspberrypi", user="pi", path="/home/pi/kws.tflite"
    )
    assert parse_address("ssh://host:2222/~/a b/bench.py:f") == Address(host="host", port=2222, path="~/a b/bench.py:f")
    assert parse_address("ssh://[fe80::1%eth0]:22/x") == Address(host="fe80::1%eth0", port=22, path="/x")
    assert parse_address("ssh://host") == parse_address("ssh://host/") == Address(host="host")
    for text in (
        "host/x",
        "ssh:///x",
        "ssh://-oProxyCommand=reboot/x",
        "ssh://-l@host/x",
        "ssh://host:0/x",
        "ssh://host:99999/x",
        "ssh://host;reboot/x",
        "ssh://ho st/x",
        "ssh://h\n/x",
    ):
        with pytest.raises(UsageError, match="is not an SSH address"):
            parse_address(text)


@pytest.mark.parametrize(
    ("kind", "path", "options", "message"),
    [
        ("mlperf-tiny", "/x", {}, "mlperf-tiny workload does not run over SSH.*tflite, python, command"),
        ("tflite", "", {}, "needs a model"),
        ("tflite", "/m.tflite", {"thread": "2"}, "Did you mean threads"),
        ("tflite", "/m.tflite", {"delegate": ",x"}, "delegate cannot be ',x'"),
        ("tflite", "/m.tflite", {"xnnpack": "yes"}, "xnnpack cannot be 'yes'. It is on or off"),
        ("tflite", "/m.tflite", {"batch": "0"}, "batch cannot be '0'"),
        ("tflite", "/m.tflite", {"timeout": "soon"}, "timeout cannot be 'soon'"),
        ("python", "/~/bench.py", {}, "does not name a function"),
        ("python", "/:f", {}, "does not name a function"),
        ("command", "", {}, "needs a command"),
        ("command", "", {"argv": "ls"}, "not a JSON list"),
        ("command", "", {"argv": '["a\\u0000b"]'}, "null character"),
    ],
)
def test_create_refuses(kind: str, path: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(kind, f"ssh://host{path}", options)


def test_habits_follow_the_kind() -> None:
    assert create("command", "ssh://host", {"argv": '["true"]'}).habits == Habits(windows=1, at_once=1, warmup=0)
    assert create("tflite", "ssh://host/m", {}).habits == Habits()


def test_what_the_remote_shell_is_given_is_quoted() -> None:
    """A program name is one word there, whatever it holds; only a leading ~/ is left to the shell."""
    command = Board(Address(host="h", user="u", port=7), python="~/my env/bin/python3; reboot", config="c")._command()
    assert command[command.index("--") + 1] == "h"
    assert command[-1].startswith("exec ~/'my env/bin/python3; reboot' -Iu -c '")
    assert command[command.index("-l") + 1] == "u"
    assert command[command.index("-p") + 1] == "7"
    assert "BatchMode=yes" in command


# --- the agent as a file


def test_the_agent_is_python_3_6_with_the_standard_library() -> None:
    tree = ast.parse(Path(agent.__file__).read_text(), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # numpy comes with whichever runtime is on the board, and is imported only with it.
    assert {name.split(".")[0] for name in names} - {"numpy"} <= sys.stdlib_module_names
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "numpy" not in top
    ast.parse(ssh.BOOT, feature_version=(3, 6))


@pytest.mark.outside
@pytest.mark.parametrize("version", ["3.6", "3.7"])
def test_the_agent_runs_on_old_pythons(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"Python {version} is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Board, "_command", lambda self: [python, "-Iu", "-c", ssh.STARTER])
    board = Board(Address(host="h"))
    board.open()
    try:
        board.exchange()
        assert board.hello["python"].startswith(version)
        opened = board.request("open", 10, kind="python", source="math", function="pi.hex", setup=None)
        assert opened["model"] == "math:pi.hex"
        assert len(board.request("run", 10, count=3, per_window=2, lead=1)["begin"]) == 3
        board.request("open", 10, kind="command", argv=["sh", "-c", "echo hello"], folder="/")
        answer = board.request("run", 10, count=1, per_window=1, lead=0)
        assert answer["codes"] == [0]
        assert [text for _, text in answer["lines"]] == ["hello"]
        ((_, text, failure),) = board.request("files", 10, patterns=["/proc/uptime"])["files"]
        assert float(text.split()[0]) > 0 and failure is None
    finally:
        board.close()


def test_the_agent_sees_the_board_as_the_host_sees_itself() -> None:
    assert (agent.cpu_model(), agent.cpu_governor()) == (cpu_model(), cpu_governor())


# --- the channel, over a real server


@pytest.mark.outside
@needs_sshd
def test_the_agent_is_brought_once_and_verified(server: Server) -> None:
    content = Path(agent.__file__).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    file = server.home / ".cache" / "joulemeter" / f"agent-{sha256[:12]}.py"
    for spoil in (file.unlink, lambda: file.write_bytes(b"import os\n"), lambda: None):
        before = None
        if file.exists():
            spoil()
            before = file.stat().st_mtime_ns if file.exists() else None
        board = server.board()
        board.open()
        board.open()
        try:
            assert file.read_bytes() == content
            assert file.stat().st_mode & 0o777 == 0o600
            assert file.parent.stat().st_mode & 0o777 == 0o700
            assert {path.name for path in file.parent.iterdir()} == {file.name}
            assert board.hello["host"] == socket.gethostname()
            pid = board.hello["pid"]
            assert psutil.pid_exists(pid)
        finally:
            board.close()
            board.close()
    assert before == file.stat().st_mtime_ns, "it was there, so it was not sent again"
    wait_for(lambda: not psutil.pid_exists(pid))


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(done: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.outside
@needs_sshd
def test_windows_agree_with_local_stamps(server: Server, opened: Opened) -> None:
    """The function notes the clock itself, which is this host's clock here."""
    workload = opened(server.workload("python", "/bench:infer"))
    workload.warm_up(3)
    stamps = workload.run(40)
    workload.board.request("open", 10, kind="python", source="bench", function="dump", setup=None)
    workload.board.request("run", 10, count=1, per_window=1, lead=0)
    notes = np.array(ast.literal_eval((server.home / "notes.txt").read_text()), dtype=np.int64)
    # Three to warm up; each part of the run begins with one that is not stamped.
    assert len(notes) >= 3 + 1 + 40
    entered, left = notes[-40:].T
    assert stamps.u_s is not None
    within_ns = 3**0.5 * stamps.u_s * 1e9
    assert np.all(stamps.begin_ns - within_ns <= entered)
    assert np.all(left <= stamps.end_ns + within_ns)
    # And not by being wide: the call itself costs microseconds.
    assert np.median(entered - stamps.begin_ns) <= within_ns + 1e6
    assert np.median(stamps.end_ns - left) <= within_ns + 1e6
    clock = workload.describe()["clock"]
    assert abs(clock["offset_s"]) <= 3**0.5 * clock["u_offset_s"]
    assert 0 < clock["rtt_min_s"] < 0.1
    assert clock["exchanges"] >= 4 * ssh.LEAST_BATCH
    print(f"{clock}, u of stamps {stamps.u_s:.3g} s")


@pytest.mark.outside
@needs_sshd
def test_placed_stamps_are_right_on_one_clock(server: Server, opened: Opened) -> None:
    """Both ends read the same CLOCK_MONOTONIC, so a placed stamp has to be the stamp."""
    workload = opened(server.workload("python", "/~/bench.py:infer"))
    workload.prepare()
    before_ns = time.monotonic_ns()
    for _ in range(5):
        answer = workload.board.request("run", 10, count=20, per_window=1, lead=0)
        workload.board.exchange()
        there_ns = np.array([answer["begin"], answer["end"]])
        assert before_ns < there_ns.min() < there_ns.max() < time.monotonic_ns()
        here_ns, u_s = workload.board.clock.place(there_ns)
        assert np.abs(here_ns - there_ns).max() <= 3**0.5 * u_s * 1e9


def other_clock(server: Server, seconds: int) -> str:
    """A Python whose CLOCK_MONOTONIC is ahead by so much, in a time namespace."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "--time", f"--monotonic={seconds}"]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no time namespaces")
    script = server.home / f"python-{seconds}"
    script.write_text(f'#!/bin/sh\nexec {" ".join(command)} {sys.executable} "$@"\n')
    script.chmod(0o700)
    return str(script)


@pytest.mark.outside
@needs_sshd
def test_an_offset_that_is_known(server: Server, opened: Opened) -> None:
    workload = opened(server.workload("python", "/~/bench.py:infer", python=other_clock(server, 1000)))
    workload.warm_up(1)
    before_ns = time.monotonic_ns()
    stamps = workload.run(30, 2)
    after_ns = time.monotonic_ns()
    clock = workload.describe()["clock"]
    assert clock["offset_s"] == pytest.approx(1000, abs=clock["u_offset_s"] * 3**0.5)
    assert stamps.inferences_per_window == 2
    assert before_ns < stamps.begin_ns[0]
    assert stamps.end_ns[-1] < after_ns
    print(f"offset 1000 s + {clock['offset_s'] - 1000:.3g} s, {clock}")


@pytest.mark.outside
@needs_sshd
def test_long_runs_are_cut_into_parts(server: Server, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joulemeter.workload.remote.PART_S", 0.05)
    workload = opened(server.workload("python", "/~/bench.py:infer"))
    workload.warm_up(2)
    before = workload.describe()["clock"]["exchanges"]
    stamps = workload.run(100)
    assert len(stamps) == 100
    assert np.all(np.diff(stamps.begin_ns) > 0)
    parts = int(np.sum(np.diff(stamps.begin_ns) > 4_000_000))
    assert parts >= 2, "a call without stamps lies between two parts"
    assert workload.describe()["clock"]["exchanges"] >= before + 3 * ssh.LEAST_BATCH
    with pytest.raises(UsageError, match="measure nothing"):
        workload.run(0)


# --- tflite


@pytest.mark.outside
@needs_sshd
def test_tflite(server: Server, opened: Opened, tmp_path: Path) -> None:
    if not MODEL.exists():
        pytest.skip("the MLPerf Tiny reference models are not here")
    model = server.home / "a model.tflite"
    shutil.copy(MODEL, model)
    workload = opened(server.workload("tflite", "/~/a model.tflite", threads="2", batch="3", seed="7"))
    workload.warm_up(5)
    stamps = workload.run(200, 4)
    described = workload.describe()
    expected = {
        "runtime": "ai-edge-litert",
        "delegate": "XNNPACK",
        "threads": 2,
        "model": "a model.tflite",
        "model_sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
        "batch": 3,
        "seed": 7,
        "cpu": cpu_model(),
        "governor": cpu_governor(),
        "host": socket.gethostname(),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    assert expected.items() <= described.items()
    assert described["version"][0].isdigit()
    assert (len(stamps), stamps.inferences_per_window) == (200, 4)
    plain = opened(server.workload("tflite", "/~/a model.tflite", xnnpack="off"))
    assert plain.describe()["delegate"] == "none"
    for path, options, error, message in (
        ("/~/gone.tflite", {}, UsageError, r"On board: There is no file .*/gone\.tflite\. Check the path on the board"),
        ("/~/bench.py", {}, UsageError, "ai-edge-litert cannot load .*bench.py"),
        ("/~/a model.tflite", {"runtime": "tvm"}, UsageError, "no TensorFlow Lite runtime 'tvm'"),
        ("/~/a model.tflite", {"delegate": "libnone.so,device:usb"}, UsageError, "delegate libnone.so does not load"),
        ("/~/a model.tflite", {"runtime": "tflite-runtime"}, MissingExtraError, "-m pip install tflite-runtime"),
    ):
        if error is MissingExtraError and importlib.util.find_spec("tflite_runtime") is not None:
            continue
        with pytest.raises(error, match=message):
            opened(server.workload("tflite", path, **options)).prepare()


@pytest.mark.outside
@needs_sshd
def test_no_runtime_on_the_board(server: Server, opened: Opened) -> None:
    bare = server.home / "bare" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare.parents[1])], check=True)
    with pytest.raises(MissingExtraError, match=rf"Install it there: {bare} -m pip install ai-edge-litert"):
        opened(server.workload("tflite", "/~/bench.py", python=str(bare))).prepare()


class Inputs:
    """What is used of an interpreter to fill its inputs."""

    def __init__(self, *tensors: tuple[str, tuple[int, ...]]) -> None:
        self._tensors = [
            {"name": str(n), "dtype": np.dtype(kind), "shape": s, "index": n} for n, (kind, s) in enumerate(tensors)
        ]
        self.drawn: dict[int, Any] = {}

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._tensors

    def set_tensor(self, index: int, values: Any) -> None:
        self.drawn[index] = values


TENSORS = (("f4", (2, 3)), ("i1", (4, 50)), ("u1", (200,)), ("i8", (1, 30)), ("?", (30,)))


def test_inputs_are_those_of_the_host() -> None:
    """The same seed draws the same numbers here and there."""
    drawn = Inputs(*TENSORS)
    agent.fill(drawn, 11)
    specs = [inputs.TensorSpec(name="x", shape=shape, dtype=np.dtype(kind)) for kind, shape in TENSORS]
    (expected,) = inputs.draw(specs, 11).sets
    for number, values in enumerate(expected):
        np.testing.assert_array_equal(drawn.drawn[number], values)
        assert drawn.drawn[number].dtype == values.dtype


def test_inputs_with_the_numpy_of_old_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.17 there is no default_rng; other numbers then, over the same ranges."""
    monkeypatch.delattr(np.random, "default_rng")
    drawn = Inputs(*TENSORS)
    agent.fill(drawn, 11)
    for (kind, shape), values in zip(TENSORS, drawn.drawn.values(), strict=True):
        assert (values.dtype, values.shape) == (np.dtype(kind), shape)
    assert (drawn.drawn[0].min() >= 0, drawn.drawn[0].max() < 1) == (True, True)
    assert drawn.drawn[1].min() < -100 < 100 < drawn.drawn[1].max()
    assert drawn.drawn[2].max() > 200
    assert set(drawn.drawn[3].ravel().tolist()) == {0, 1}
    with pytest.raises(agent.RefusedError, match=r"holds .*U3, which cannot be drawn"):
        agent.fill(Inputs(("U3", (1,))), 0)


# --- python


@pytest.mark.outside
@needs_sshd
@pytest.mark.parametrize(
    ("path", "setup", "error", "message"),
    [
        ("/~/gone.py:f", "", UsageError, "There is no Python file"),
        ("/gone:f", "", UsageError, "There is no Python module 'gone'"),
        ("/~/bench.py:gone", "", UsageError, "bench.py has no function 'gone'"),
        ("/~/bench.py:notes", "", UsageError, "notes of .*bench.py is list, not a function"),
        ("/~/bench.py:half", "broken", UsageError, r"broken of .* failed: KeyError: 'cat' \(.*bench.py:14 in broken\)"),
        (
            "/~/bench.py:broken",
            "",
            IncompleteError,
            r"broken of .* failed: KeyError: 'cat' \(.*bench.py:14 in broken\)",
        ),
        ("/~/bench.py:dies", "", IncompleteError, "The agent on board was killed or has crashed"),
        ("/~/bench.py:stuck", "", IncompleteError, "did not answer within 1 s.*option timeout"),
    ],
)
def test_python_errors(server: Server, opened: Opened, path: str, setup: str, error: Any, message: str) -> None:
    workload = opened(server.workload("python", path, setup=setup, timeout="1"))
    with pytest.raises(error, match=message) as caught:
        workload.run(2)
    assert type(caught.value).exit_code == error.exit_code
    assert not (server.home / "__pycache__").exists()


@pytest.mark.outside
@needs_sshd
def test_python_by_module_name_and_setup(server: Server, opened: Opened) -> None:
    workload = opened(server.workload("python", "/bench:half", setup="make"))
    assert len(workload.run(5)) == 5
    described = workload.describe()
    assert (described["runtime"], described["model"], described["setup"]) == ("python", "bench:half", "make")
    assert described["model_sha256"] == hashlib.sha256(BENCH.encode()).hexdigest()


# --- command


@pytest.mark.outside
@needs_sshd
def test_command(server: Server, opened: Opened) -> None:
    (server.home / "work").mkdir(exist_ok=True)
    script = "pwd; echo one; sleep 0.2; printf 'two \\033[1mé\\n'; echo three >&2"
    workload = opened(server.workload("command", "/~/work", argv=json.dumps(["sh", "-c", script])))
    before_ns = time.monotonic_ns()
    stamps = workload.run(2, 50)
    after_ns = time.monotonic_ns()
    heard = workload.heard()
    assert (len(stamps), stamps.inferences_per_window) == (2, 50)
    assert np.all(stamps.end_ns - stamps.begin_ns >= 200_000_000)
    labels = [event.label for event in heard]
    assert labels[0] == str(server.home / "work")
    assert labels[1] == "one"
    assert labels[2].startswith("two")
    assert labels[3] == "three"
    assert len(labels) == 8
    at = [event.monotonic_ns for event in heard]
    assert all(stamp is not None and before_ns < stamp < after_ns for stamp in at)
    assert at[2] is not None
    assert at[1] is not None
    assert at[2] - at[1] >= 190_000_000
    assert {event.source for event in heard} == {"stdout"}
    assert all(event.u_s is not None and event.u_s > 0 for event in heard)
    assert workload.heard() == []
    assert workload.describe()["exit_codes"] == {"0": 2}


@pytest.mark.outside
@needs_sshd
@pytest.mark.parametrize(
    ("argv", "path", "error", "message"),
    [
        (["sh", "-c", "echo no memory; exit 3"], "", IncompleteError, "exit code 3. Its last line was: no memory"),
        (["sh", "-c", "kill -9 $$"], "", IncompleteError, "ended by signal 9"),
        (["no-such-program"], "", UsageError, "There is no command 'no-such-program'"),
        (["./bench.py"], "", UsageError, "There is no command './bench.py'"),
        (["true"], "/no/such/folder", UsageError, "There is no folder /no/such/folder"),
    ],
)
def test_command_errors(
    server: Server, opened: Opened, argv: list[str], path: str, error: type[JouleMeterError], message: str
) -> None:
    workload = opened(server.workload("command", path, argv=json.dumps(argv)))
    with pytest.raises(error, match=message):
        workload.run(1)


@pytest.mark.outside
@needs_sshd
def test_closing_ends_what_runs(server: Server) -> None:
    """A command under way dies with the connection, and so does what it has started."""
    pids = server.home / "pids"
    script = f"echo $$ > {pids}; sleep 60 & echo $! >> {pids}; wait"
    workload = server.workload("command", argv=json.dumps(["sh", "-c", script]))
    workload.prepare()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            workload.run(1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    ssh_process = workload.board._process
    assert ssh_process is not None
    ssh_process.kill()
    thread.join(10)
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
    assert isinstance(failures[0], IncompleteError)
    workload.close()


@pytest.mark.outside
@needs_sshd
def test_ctrl_c_ends_the_agent(server: Server, opened: Opened) -> None:
    workload = opened(server.workload("python", "/~/bench.py:stuck"))
    workload.prepare()
    pid = workload.board.hello["pid"]
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        workload.run(1)
    wait_for(lambda: not alive(pid))
    with pytest.raises(IncompleteError, match="is closed"):
        workload.run(1)


# --- what can go wrong before it begins


@pytest.mark.outside
@needs_sshd
def test_refusals(server: Server) -> None:
    cases: tuple[tuple[str, dict[str, Any], type[JouleMeterError], str], ...] = (
        ("refused", {}, AccessError, "refused did not let us in.*ssh-copy-id refused"),
        ("unknown", {}, AccessError, "host key of unknown is not known"),
        ("nowhere.invalid", {}, NotFoundError, "There is no host nowhere.invalid"),
        ("board", {"python": "python9"}, UsageError, "no python9 on board that runs.*python=PATH"),
        ("board", {"python": str(server.home / "bench.py")}, UsageError, "bench.py on board that runs"),
        ("board", {"python": "echo"}, NotFoundError, r"ended the session \(exit code 0\) before the agent spoke"),
        ("board", {"config": str(server.home / "none")}, UsageError, "does not accept its configuration"),
    )
    for host, more, error, message in cases:
        board = Board(Address(host=host), **({"config": str(server.config)} | more))
        with pytest.raises(error, match=message) as caught:
            board.open()
        assert type(caught.value) is error


@pytest.mark.outside
@needs_sshd
def test_nobody_listens(server: Server) -> None:
    board = Board(Address(host="board", port=free_port()), config=str(server.config))
    with pytest.raises(NotFoundError, match=r"refuses SSH connections.*Connection refused"):
        board.open()


@pytest.mark.outside
@needs_sshd
def test_something_else_listens(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.sendall(b"220 mail.example.org ESMTP\r\n" * 3)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        board = Board(Address(host="board", port=listening.getsockname()[1]), config=str(server.config))
        with pytest.raises(NotFoundError, match="closed the connection"):
            board.open()
        thread.join()


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"no ssh program on this host.*openssh-client"):
        create("tflite", "ssh://host/m.tflite", {}).prepare()


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file in the way")
    command = [sys.executable, "-Iu", "-c", ssh.STARTER]
    monkeypatch.setattr(Board, "_command", lambda self: command)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        AccessError, match=r"agent cannot be kept on h: .*\.cache/joulemeter.*Make that folder writable"
    ):
        Board(Address(host="h")).open()


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("print('joulemeter-put old 3.5.2')", UsageError, "is Python 3.5.2; the agent needs 3.6"),
        ("print('joulemeter-put bad')", DataError, "did not arrive on h as it was sent"),
        ("while True: print('x' * 1000)", DataError, "prints without end"),
        (
            "import time; time.sleep(60)",
            IncompleteError,
            r"did not start the agent within .*Check what `ssh h` waits for",
        ),
        ("print('joulemeter-agent {\"host\"')", DataError, "no answer of"),
        ("print('joulemeter-agent {}'); print('nonsense', flush=True); input(); input()", DataError, "no answer of"),
    ],
)
def test_strange_boards(
    monkeypatch: pytest.MonkeyPatch, program: str, error: type[JouleMeterError], message: str
) -> None:
    monkeypatch.setattr(Board, "_command", lambda self: [sys.executable, "-u", "-c", program])
    monkeypatch.setattr(ssh, "HELLO_S", 1.0)
    monkeypatch.setattr(ssh, "CONNECT_S", 0.0)
    monkeypatch.setattr(ssh, "CLOSE_S", 0.2)
    board = Board(Address(host="h"))
    try:
        with pytest.raises(error, match=message):
            board.open()
            board.request("open", 5)
    finally:
        board.close()


# --- a connection that is lost


@pytest.mark.outside
@needs_sshd
def test_a_lost_connection(server: Server, opened: Opened) -> None:
    workload = opened(server.workload("python", "/~/bench.py:infer"))
    kept = workload.run(3)
    agent_process = psutil.Process(workload.board.hello["pid"])
    # The server's process for this connection: the agent's nearest ancestor of that name.
    session = next(parent for parent in agent_process.parents() if "sshd" in parent.name())
    for process in (session, *[p for p in session.parents() if "sshd" in p.name() and p.pid != server.process.pid]):
        process.send_signal(signal.SIGKILL)
    with pytest.raises(IncompleteError, match=r"connection to board was lost.*What was recorded until then is kept"):
        workload.run(3)
    assert len(kept) == 3
    wait_for(lambda: not agent_process.is_running())
    with pytest.raises(IncompleteError, match="is closed"):
        workload.run(1)
    # What was learnt is still told.
    assert workload.describe()["clock"]["exchanges"] > 0


@pytest.mark.outside
@needs_sshd
def test_the_agent_is_killed(server: Server, opened: Opened) -> None:
    workload = opened(server.workload("python", "/~/bench.py:infer"))
    workload.prepare()
    os.kill(workload.board.hello["pid"], signal.SIGKILL)
    with pytest.raises(IncompleteError, match="agent on board was killed or has crashed"):
        workload.run(1)


@pytest.mark.outside
@needs_sshd
def test_a_model_that_crashes_its_runtime(server: Server, opened: Opened) -> None:
    (server.home / "crash.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    with pytest.raises(UsageError, match="Loading it ended the agent on board"):
        opened(server.workload("python", "/~/crash.py:f")).prepare()
