"""The agent on a board, over one connection of the system's `ssh`.

`ssh HOST python3` is given the agent's hash, asks for the file if it has none with that hash, keeps it in
~/.cache/joulemeter (readable by that user alone), and becomes it. From then on the connection is a channel of lines:
see agent.py. What a login shell prints before the agent's mark is passed over.

ssh never asks for anything here (BatchMode): keys, jump hosts, ports and names are the business of ~/.ssh/config.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import selectors
import shlex
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import IO, Any

from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.workload import agent
from joulemeter.workload.twoway import Exchange, TwoWayClock

CONNECT_S = 10
# Of a login shell, a slow card and the start of Python.
HELLO_S = 60.0
PING_S = 30.0
CLOSE_S = 2.0
READ_BYTES = 65536
# What a login shell may print before the agent speaks, and what is kept of stderr.
MAX_NOISE = 1 << 20
MAX_STDERR = 8192
# A batch of exchanges is this many, or fewer on a slow network.
BATCH = 20
LEAST_BATCH = 4
BATCH_S = 0.25

OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_S),
    # A connection that is gone shows within 15 s, however long an inference takes.
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    # A connection of our own, so that its end is the agent's end, and nothing on it but the channel.
    "ControlMaster": "no",
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    # Its messages are how a failure is told by name.
    "LogLevel": "INFO",
}

# On the board: the argument of python3 is constant and one line, which any login shell passes on unharmed; the program
# below, ours and nobody else's, comes as a JSON string on the first line of stdin.
STARTER = "import json, sys; exec(json.loads(sys.stdin.buffer.readline().decode()))"
PUT = b"joulemeter-put "
BOOT = """
import hashlib, os, sys
def say(text):
    sys.stdout.write("joulemeter-put " + text + chr(10))
    sys.stdout.flush()
def same(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == SHA256
    except OSError:
        return False
if sys.version_info < (3, 6):
    say("old " + sys.version.split()[0])
    sys.exit(1)
folder = os.path.join(os.path.expanduser("~"), ".cache", "joulemeter")
path = os.path.join(folder, "agent-" + SHA256[:12] + ".py")
try:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if same(path):
        say("have")
    else:
        say("need")
        content = sys.stdin.buffer.read(SIZE)
        part = path + "." + str(os.getpid())
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        if not same(path):
            say("bad")
            sys.exit(1)
        say("have")
except OSError as error:
    say("fails " + path + ": " + str(error.strerror))
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-u", path])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`ssh://[user@]host[:port]/path`. `path` is absolute, or begins with ~/, or is "" where there is none."""

    host: str
    user: str | None = None
    port: int | None = None
    path: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


# Neither may begin with a hyphen: ssh would take it for an option.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[\w.+][\w.+@\\-]*)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*)"
    r"(?::(?P<port>\d{1,5}))?(?P<path>/.*)?",
    re.ASCII,
)


def parse_address(text: str) -> Address:
    """Raises UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"] or 22) < 65536 or "\0" in text:
        raise UsageError(f"{text!r} is not an SSH address.", "Write ssh://[user@]host[:port]/path.")
    path = match["path"] or ""
    return Address(
        host=match["host"].strip("[]"),
        user=match["user"],
        port=int(match["port"]) if match["port"] else None,
        path=path[1:] if path.startswith("/~/") else path.rstrip("/") or "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What ssh says on stderr, and what that is. `{host}` and `{destination}` are filled in."""

    says: str
    error: type[JouleMeterError]
    what: str
    remedy: str


TROUBLES = (
    Trouble(
        says=r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known",
        error=AccessError,
        what="The host key of {host} is not known here, or is not the one that is.",
        remedy="Run `ssh {destination}` once and compare the fingerprint with the board's.",
    ),
    Trouble(
        says=r"Permission denied|Too many authentication failures|No supported authentication methods",
        error=AccessError,
        what="{host} did not let us in: none of your SSH keys is accepted there, and passwords are not asked for.",
        remedy="Put a key on the board, `ssh-copy-id {destination}`, and load it (`ssh-add`) if it has a passphrase.",
    ),
    Trouble(
        says=r"Could not resolve hostname|Name or service not known",
        error=NotFoundError,
        what="There is no host {host}.",
        remedy="Check the name, or give its IP address.",
    ),
    Trouble(
        says=r"Connection refused",
        error=NotFoundError,
        what="{host} refuses SSH connections.",
        remedy="Enable its SSH server, or give the right port: ssh://HOST:PORT/...",
    ),
    Trouble(
        says=r"[Tt]imed out|No route to host|Network is unreachable|Host is down",
        error=NotFoundError,
        what="{host} does not answer.",
        remedy="Check that it has power and is on this network.",
    ),
    Trouble(
        says=r"Bad configuration option|bad configuration options|Can't open user config|Bad owner or permissions",
        error=UsageError,
        what="ssh does not accept its configuration.",
        remedy="Correct the file it names.",
    ),
    Trouble(
        says=r"kex_exchange_identification|Connection closed by|Connection reset by",
        error=NotFoundError,
        what="{host} closed the connection before it was one.",
        remedy="Check that an SSH server listens on that port and takes connections from this host.",
    ),
)
LOST = re.compile(r"Timeout, server|Connection (?:to|closed|reset)|Broken pipe|client_loop|[Cc]orrupted MAC|timed out")


class AgentDiedError(IncompleteError):
    """The connection was good, and what ran on the board ended."""


class Board:
    """A channel to the agent. `config` is a file for `ssh -F` in place of the user's, `python` the one to run there.

    `clock` has the exchanges that were made. `hello` is what the agent says of the board, empty before `open`.
    """

    def __init__(self, address: Address, *, python: str = "python3", config: str | None = None) -> None:
        self.address = address
        self.clock = TwoWayClock()
        self.hello: dict[str, Any] = {}
        self._python = python
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._selector: selectors.BaseSelector
        self._pending = b""
        # Answers that came while something else was waited for.
        self._held: deque[bytes] = deque()
        self._stderr = b""
        self._listener: threading.Thread | None = None

    def open(self) -> None:
        """Connect, put the agent there if it is not, and start it.

        Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError.
        """
        if self._process is not None:
            return
        try:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Ctrl-C is for us: the channel is closed in order then.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise NotFoundError(
                "There is no ssh program on this host.", "Install the OpenSSH client: apt install openssh-client."
            ) from error
        try:
            stdout, stderr = _pipe(self._process.stdout), _pipe(self._process.stderr)
            self._selector = selectors.DefaultSelector()
            self._selector.register(stdout, selectors.EVENT_READ)
            self._listener = threading.Thread(target=self._listen, args=(stderr,), daemon=True)
            self._listener.start()
            self._start()
        except BaseException:
            self.close()
            raise

    def exchange(self) -> None:
        """Compare the clocks: a batch of exchanges. Raises DataError when they have jumped, IncompleteError."""
        batch: list[Exchange] = []
        until = time.monotonic() + BATCH_S
        while len(batch) < LEAST_BATCH or (len(batch) < BATCH and time.monotonic() < until):
            sent_ns = monotonic_ns()
            self._write(b"ping\n")
            while True:
                line, received_ns = self._line(PING_S, "did not answer")
                if line.startswith(b"pong "):
                    break
                self._held.append(line)
            arrived, answered = line.split()[1:]
            batch.append(
                Exchange(sent_ns=sent_ns, arrived_ns=int(arrived), answered_ns=int(answered), received_ns=received_ns)
            )
        self.clock.add(batch)

    def request(self, operation: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Have the agent do something; its answer.

        Raises what the answer is when it is an error, and IncompleteError when none comes.
        """
        self._write(json.dumps({"op": operation} | fields).encode() + b"\n")
        return self._answer(timeout_s)

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at once if anything has; b"" after the timeout. Raises IncompleteError, AgentDiedError."""
        if self._process is None:
            raise IncompleteError(f"The connection to {self.address} is closed.")
        if not self._pending and self._selector.select(timeout_s):
            self._pending = os.read(_pipe(self._process.stdout).fileno(), READ_BYTES)
            if not self._pending:
                raise self._ended(starting=False)
        held = b"".join(line + b"\n" for line in self._held)
        raw, self._pending = held + self._pending, b""
        self._held.clear()
        return raw

    def write(self, raw: bytes) -> None:
        """Raises IncompleteError, AgentDiedError."""
        self._write(raw)

    def close(self) -> None:
        """End the agent, which ends what it runs, and the connection. May be called twice, and after a failure."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join(CLOSE_S)
        self._selector.close()
        _pipe(process.stdout).close()
        _pipe(process.stderr).close()
        self._pending = b""
        self._held.clear()

    def _command(self) -> list[str]:
        command = ["ssh", "-T", "-x", "-a"]
        if self._config is not None:
            command += ["-F", self._config]
        for name, value in OPTIONS.items():
            command += ["-o", f"{name}={value}"]
        if self.address.port is not None:
            command += ["-p", str(self.address.port)]
        if self.address.user is not None:
            command += ["-l", self.address.user]
        # A tilde is the board's shell's to expand, everything else is quoted for it.
        home, python = ("~/", self._python[2:]) if self._python.startswith("~/") else ("", self._python)
        return [*command, "--", self.address.host, f"exec {home}{shlex.quote(python)} -Iu -c {shlex.quote(STARTER)}"]

    def _start(self) -> None:
        content = Path(agent.__file__).read_bytes()
        boot = f"SHA256 = {hashlib.sha256(content).hexdigest()!r}; SIZE = {len(content)}{BOOT}"
        self._write(json.dumps(boot).encode() + b"\n")
        until = time.monotonic() + CONNECT_S + HELLO_S
        noise = 0
        while True:
            line, _ = self._line(max(0.0, until - time.monotonic()), "did not start the agent", starting=True)
            noise += len(line)
            # A prompt or a banner without a line end may stand before a mark.
            _, put, word = line.rpartition(PUT)
            _, mark, said = line.rpartition(agent.MARK)
            if mark:
                self.hello = self._object(said)
                return
            if put and word == b"need":
                self._write(content)
            elif put and word != b"have":
                raise self._refused(word.decode(errors="replace"))
            if noise > MAX_NOISE:
                raise DataError(f"{self.address} prints without end instead of starting the agent.")

    def _refused(self, word: str) -> JouleMeterError:
        reason, _, detail = word.partition(" ")
        if reason == "old":
            return UsageError(
                f"{self._python} on {self.address} is Python {detail}; the agent needs 3.6 or newer.",
                "Name a newer one that is on the board: option python=PATH.",
            )
        if reason == "fails":
            return AccessError(f"The agent cannot be kept on {self.address}: {detail}.", "Make that folder writable.")
        return DataError(f"The agent did not arrive on {self.address} as it was sent.", "Check the board's storage.")

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        answer = self._json(timeout_s)
        _raise_error(answer, self.address)
        return dict(answer["ok"])

    def _json(self, timeout_s: float) -> dict[str, Any]:
        return self._object(self._held.popleft() if self._held else self._line(timeout_s, "did not answer")[0])

    def _object(self, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise DataError(f"{self.address} sent {line[:80]!r}, which is no answer of the agent.")

    def _line(self, timeout_s: float, failing: str, *, starting: bool = False) -> tuple[bytes, int]:
        """The next line, and our clock when it was complete."""
        if self._process is None:
            raise IncompleteError(f"The connection to {self.address} is closed.")
        stdout = _pipe(self._process.stdout).fileno()
        until = time.monotonic() + timeout_s
        now_ns = monotonic_ns()
        while b"\n" not in self._pending:
            try:
                ready = self._selector.select(max(0.0, until - time.monotonic()))
            except KeyboardInterrupt:
                # The answer would come later, and be taken for another one.
                self.close()
                raise
            if not ready:
                self.close()
                raise IncompleteError(
                    f"{self.address} {failing} within {timeout_s:.0f} s.",
                    f"Check what `ssh {self.address}` waits for."
                    if starting
                    else "Check what the board is doing; allow it more with the option timeout.",
                )
            raw = os.read(stdout, READ_BYTES)
            now_ns = monotonic_ns()
            if not raw:
                raise self._ended(starting)
            self._pending += raw
            if len(self._pending) > MAX_NOISE and starting:
                raise DataError(f"{self.address} prints without end instead of starting the agent.")
        line, _, self._pending = self._pending.partition(b"\n")
        return line.rstrip(b"\r"), now_ns

    def _write(self, raw: bytes) -> None:
        if self._process is None:
            raise IncompleteError(f"The connection to {self.address} is closed.")
        stdin = _pipe(self._process.stdin).fileno()
        try:
            while raw:
                raw = raw[os.write(stdin, raw) :]
        except BrokenPipeError as error:
            raise self._ended(starting=not self.hello) from error

    def _ended(self, starting: bool) -> JouleMeterError:
        """What the end of the connection means."""
        process = self._process
        self.close()
        code = process.returncode if process is not None else None
        said = self._stderr.decode(errors="replace")
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        quoted = f" It said: {last[:300]}" if last else ""
        host = {"host": self.address.host, "destination": str(self.address)}
        if not starting:
            kept = "What was recorded until then is kept."
            if LOST.search(said):
                return IncompleteError(f"The connection to {self.address} was lost.{quoted}", kept)
            return AgentDiedError(f"The agent on {self.address} was killed or has crashed.{quoted}", kept)
        if code in (126, 127):
            return UsageError(
                f"There is no {self._python} on {self.address} that runs.{quoted}",
                "Install Python 3.6 or newer there, or name it: option python=PATH.",
            )
        if code == 255:
            for trouble in TROUBLES:
                if re.search(trouble.says, said):
                    return trouble.error(f"{trouble.what.format(**host)}{quoted}", trouble.remedy.format(**host))
        return NotFoundError(
            f"{self.address} ended the session (exit code {code}) before the agent spoke.{quoted}",
            f"Check that `ssh {self.address} {self._python} --version` prints a version.",
        )

    def _listen(self, stderr: IO[bytes]) -> None:
        """Keep the end of what ssh and the workload say there; unread, the pipe would fill and block them."""
        while raw := stderr.read(READ_BYTES):
            self._stderr = (self._stderr + raw)[-MAX_STDERR:]


_KINDS: dict[str, type[JouleMeterError]] = {
    "usage": UsageError,
    "access": AccessError,
    "data": DataError,
    "incomplete": IncompleteError,
}


def _raise_error(answer: dict[str, Any], address: Address) -> None:
    """The error that the agent answers, as ours."""
    error = answer.get("error")
    if error is None:
        return
    kind, what, remedy = error["kind"], f"On {address}: {error['what']}", error["remedy"]
    if kind == "missing":
        missing = MissingExtraError(what, "")
        missing.remedy = f"Install it there: {remedy}"
        raise missing
    kept = "What was recorded until then is kept." if kind == "incomplete" else ""
    raise _KINDS[kind](what, f"{remedy} {kept}".strip())


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("ssh was started without its pipes")
    return pipe
