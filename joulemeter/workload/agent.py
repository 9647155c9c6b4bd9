# Boards run Python 3.6 (JetPack 4) and 3.7 (Mendel Linux), which have the old names of types only.
# ruff: noqa: UP006, UP035, UP045
"""What runs on a board that is reached over SSH: this one file, with Python 3.6 or newer and its standard library.

Lines on stdin are requests, lines on stdout answers: `ping` is answered by `pong ARRIVED ANSWERED`, everything else is
JSON. Stamps are the board's CLOCK_MONOTONIC in nanoseconds. While windows are stamped nothing is sent, and nothing is
read: a thread sleeps until stdin closes, which ends this process and what it has started.
"""

import array
import contextlib
import ctypes
import errno
import gc
import glob
import hashlib
import importlib
import importlib.util
import itertools
import json
import operator
import os
import platform
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

MARK = b"joulemeter-agent "
READ_BYTES = 65536
MAX_LINE = 4096
# What a round keeps of a source of each kind at most, in characters of JSON: sysfs holds integers and words.
LIMITS = {"number": 22, "text": 64, "output": 2000}
# A command that is read like a file answers within a few milliseconds.
OUTPUT_S = 2.0
MAX_LINES = 100000
# How long output is awaited after the end of a command, where something keeps its terminal open.
LINGER_S = 0.2

Fields = Dict[str, Any]


def _from_seconds() -> int:
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e9)


# Python 3.6 has no integer clock; a double holds a year of uptime to 4 ns.
clock: Callable[[], int] = getattr(time, "monotonic_ns", _from_seconds)


class RefusedError(Exception):
    """An answer that is an error.

    `kind` is usage, access, missing, incomplete or data; where it is missing, the remedy is a command to run.
    """

    def __init__(self, kind: str, what: str, remedy: str = "") -> None:
        Exception.__init__(self, what)
        self.fields = {"kind": kind, "what": what, "remedy": remedy}


# -- the channel ------------------------------------------------------------------------------------------------------


class Channel:
    """The lines to and from the host. What the workload prints goes to stderr, and it finds its stdin empty."""

    def __init__(self) -> None:
        self.stdin = os.dup(0)
        self._stdout = os.dup(1)
        self._pending = b""
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def line(self, timeout_s: Optional[float] = None) -> Optional[bytes]:
        """The next request that is not a ping, None when there was none in time. Ends the process with the channel."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            while b"\n" in self._pending:
                line, self._pending = self._pending.split(b"\n", 1)
                if line == b"ping":
                    # It came together with others; an answer that is late is only a looser limit.
                    self.write(b"pong %d %d\n" % (clock(), clock()))
                elif line:
                    return line
            if until is not None and not select.select([self.stdin], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            raw = os.read(self.stdin, READ_BYTES)
            arrived = clock()
            if raw == b"ping\n":
                self.write(b"pong %d %d\n" % (arrived, clock()))
            elif raw:
                self._pending += raw
            else:
                abandon()

    def send(self, fields: Fields) -> None:
        self.write(json.dumps(fields).encode("ascii") + b"\n")

    def write(self, raw: bytes) -> None:
        try:
            while raw:
                raw = raw[os.write(self._stdout, raw) :]
        except OSError:
            abandon()


class Watch:
    """Ends the process when the host goes away, or says anything, while the workload runs."""

    def __init__(self, stdin: int) -> None:
        self._stdin = stdin
        self._finish, self._finished = os.pipe()
        self._thread = threading.Thread(target=self._wait)
        self._thread.daemon = True

    def _wait(self) -> None:
        if self._stdin in select.select([self._stdin, self._finish], [], [])[0]:
            abandon()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        os.close(self._finished)
        self._thread.join()
        os.close(self._finish)


_groups: List[int] = []


def abandon(*_: Any) -> None:
    """End what was started here, then this process, from any thread."""
    for group in list(_groups):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    os._exit(1)


# -- windows ----------------------------------------------------------------------------------------------------------


def stamp(call: Callable[[], Any], count: int, per_window: int) -> Tuple[List[int], List[int]]:
    """The clock before and after each of `count` windows of `per_window` calls."""
    begin, end = array.array("q", [-1]) * count, array.array("q", [-1]) * count
    gc.collect()
    gc.disable()
    try:
        for window in range(count):
            if per_window == 1:
                started = clock()
                call()
                ended = clock()
            else:
                calls = itertools.repeat(None, per_window)
                started = clock()
                for _ in calls:
                    call()
                ended = clock()
            begin[window] = started
            end[window] = ended
    finally:
        gc.enable()
    return begin.tolist(), end.tolist()


class Called:
    """A workload that is a call in this process."""

    def __init__(
        self, call: Callable[[], Any], description: Fields, blame: Callable[[BaseException], RefusedError]
    ) -> None:
        self._call = call
        self._blame = blame
        self.description = description

    def run(self, count: int, per_window: int, lead: int) -> Fields:
        """`lead` calls without stamps come first: what happened before has cooled the caches."""
        try:
            for _ in range(lead):
                self._call()
            begin, end = stamp(self._call, count, per_window)
        except (Exception, SystemExit) as error:
            raise self._blame(error) from error
        return {"begin": begin, "end": end}


# -- tflite -----------------------------------------------------------------------------------------------------------

# Name, package, module with the Interpreter, what stands before load_delegate and OpResolverType there, distribution.
RUNTIMES = (
    ("litert", "ai_edge_litert", "ai_edge_litert.interpreter", "", "ai-edge-litert"),
    ("tflite-runtime", "tflite_runtime", "tflite_runtime.interpreter", "", "tflite-runtime"),
    ("tensorflow", "tensorflow", "tensorflow.lite", "experimental.", "tensorflow"),
)


def open_tflite(
    model: str,
    runtime: Optional[str],
    threads: int,
    batch: Optional[int],
    seed: int,
    delegates: List[Tuple[str, Fields]],
    xnnpack: Optional[bool],
) -> Called:
    """As the host's tflite workload does it: the same delegates, the same inputs, the same words for them."""
    path = str(Path(model).expanduser())
    name, package, module_name, prefix, distribution = choose_runtime(runtime)
    sha256 = digest(path)
    try:
        module = _module(module_name)
    except (ImportError, AttributeError) as error:
        raise RefusedError(
            "usage", f"The runtime {name} cannot be imported: {brief(error)}.", "Install it again."
        ) from error
    more: Fields = {}
    if xnnpack is False:
        try:
            resolvers = operator.attrgetter(prefix + "OpResolverType")(module)
            more["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        except AttributeError as error:
            raise RefusedError("usage", f"{distribution} cannot leave XNNPACK out.", "Install a newer one.") from error
    if delegates:
        load = operator.attrgetter(prefix + "load_delegate")(module)
        more["experimental_delegates"] = [_delegate(load, library, settings) for library, settings in delegates]
    names = [library for library, _ in delegates]
    try:
        interpreter = module.Interpreter(model_path=path, num_threads=threads, **more)
        own = _delegated(interpreter)
        if delegates and own == 0:
            raise RefusedError(
                "usage",
                f"The delegate {' with '.join(names)} takes over no operator of {model}.",
                "Convert or compile the model for it, or leave it out.",
            )
        for tensor in interpreter.get_input_details() if batch is not None else ():
            if not len(tensor["shape"]):
                raise RefusedError("usage", f"The input {tensor['name']!r} is a single number: it has no batch.")
            interpreter.resize_tensor_input(tensor["index"], [batch] + [int(n) for n in tensor["shape"][1:]])
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        how = "".join([f" in a batch of {batch}" if batch else "", f" with {' and '.join(names)}" if names else ""])
        raise RefusedError("usage", f"{distribution} cannot load {model}{how}: {brief(error)}.") from error
    every = _delegated(interpreter)
    active = None if own is None or every is None else every > own
    if xnnpack and active is False:
        raise RefusedError("usage", f"XNNPACK takes over no operator of {model} in {distribution}.")
    if xnnpack is False and active is None:
        active = False
    fill(interpreter, seed)
    firsts = {int(tensor["shape"][0]) if len(tensor["shape"]) else None for tensor in interpreter.get_input_details()}
    shown = None if active is None and not names else "+".join(names + ["XNNPACK"] * bool(active)) or "none"
    return Called(
        interpreter.invoke,
        {
            "runtime": distribution,
            "version": version_of(distribution, package),
            "delegate": shown,
            "threads": threads,
            "model": Path(path).name,
            "model_sha256": sha256,
            "batch": firsts.pop() if len(firsts) == 1 else None,
            "seed": seed,
        },
        lambda error: RefusedError("usage", f"{model} does not run: {brief(error)}."),
    )


def _module(name: str) -> Any:
    """tensorflow.lite is made when it is asked for, so it cannot be imported by its name."""
    package, _, attribute = name.partition(".")
    if package == "tensorflow":
        return getattr(importlib.import_module(package), attribute)
    return importlib.import_module(name)


def _delegated(interpreter: Any) -> Optional[int]:
    """How many nodes delegates run; None where this runtime does not list its nodes."""
    listed = getattr(interpreter, "_get_ops_details", None)
    return None if listed is None else sum(node["op_name"] == "DELEGATE" for node in listed())


def choose_runtime(name: Optional[str]) -> Tuple[str, str, str, str, str]:
    known = [row for row in RUNTIMES if name is None or row[0] == name]
    if not known:
        names = ", ".join(row[0] for row in RUNTIMES)
        raise RefusedError("usage", f"There is no TensorFlow Lite runtime {name!r}.", f"Known are {names}.")
    for row in known:
        if importlib.util.find_spec(row[1]) is not None:
            return row
    what = f"The runtime {name} is not installed." if name else "No TensorFlow Lite runtime is installed."
    # The first of the table has never been built for the Pythons of old boards.
    best = known[0] if name or sys.version_info >= (3, 9) else known[1]
    raise RefusedError("missing", what, f"{sys.executable} -m pip install {best[4]}")


def _delegate(load: Callable[..., Any], library: str, settings: Fields) -> Any:
    # The loader looks for a name without a slash in the system's folders alone.
    path = Path(library).expanduser()
    library = str(path.absolute()) if path.is_file() else library
    try:
        ctypes.CDLL(library)  # A runtime's own loader says of most libraries only that they failed.
        return load(library, settings)
    except (ValueError, RuntimeError, OSError, AttributeError) as error:
        remedy = "Check that the library is installed on the board, and that its device is there and free."
        raise RefusedError("usage", f"The delegate {library} does not load: {brief(error)}.", remedy) from error


def fill(interpreter: Any, seed: int) -> None:
    """Inputs drawn as the tflite workload of the host draws them, so that one seed means the same inputs."""
    import numpy as np

    if hasattr(np.random, "default_rng"):
        generator: Any = np.random.default_rng(seed)
        real, whole = generator.random, partial(generator.integers, endpoint=True)
    else:  # numpy before 1.17: other numbers, of the same kind
        generator = np.random.RandomState(seed)
        real, whole = generator.random_sample, partial(_randint, generator)

    for tensor in interpreter.get_input_details():
        kind, shape = np.dtype(tensor["dtype"]), tuple(tensor["shape"])
        if kind.kind == "f":
            values = real(shape).astype(kind)
        elif kind.kind in "iu" and kind.itemsize <= 2:
            limits = np.iinfo(kind)
            values = whole(limits.min, limits.max, shape, dtype=kind)
        elif kind.kind in "iub":
            values = whole(0, 1, shape).astype(kind)
        else:
            raise RefusedError("usage", "The input {!r} holds {}, which cannot be drawn.".format(tensor["name"], kind))
        interpreter.set_tensor(tensor["index"], values)


def _randint(generator: Any, low: int, high: int, shape: Any, dtype: Any = "i8") -> Any:
    return generator.randint(low, high + 1, shape).astype(dtype)


def version_of(distribution: str, package: str) -> Optional[str]:
    try:
        return str(importlib.import_module("importlib.metadata").version(distribution))
    except Exception:  # no such module before Python 3.8, and distributions that go by other names
        version = getattr(importlib.import_module(package), "__version__", None)
        return None if version is None else str(version)


# -- python -----------------------------------------------------------------------------------------------------------


def open_python(source: str, function: str, setup: Optional[str]) -> Called:
    path = str(Path(source).expanduser().absolute()) if source.endswith(".py") else None
    if path is not None and not Path(path).is_file():
        raise RefusedError("usage", f"There is no Python file {source}.", "Check the path on the board.")
    sys.path.insert(0, str(Path(path).parent if path is not None else Path.cwd()))
    try:
        if path is not None:
            spec = importlib.util.spec_from_file_location(Path(path).stem, path)
            module: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
            sys.modules.setdefault(module.__name__, module)
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        else:
            if importlib.util.find_spec(source.split(".")[0]) is None:
                raise RefusedError("usage", f"There is no Python module {source!r} for {sys.executable}.")
            module = importlib.import_module(source)
    except RefusedError:
        raise
    except (Exception, SystemExit) as error:
        raise RefusedError("usage", f"{source} cannot be imported: {blame(error, path)}.") from error
    found = [_attribute(module, source, name) for name in (function, setup) if name is not None]
    file = getattr(getattr(found[0], "__code__", None), "co_filename", None) or getattr(module, "__file__", None)
    call = found[0]
    if setup is not None:
        try:
            state = found[1]()
        except (Exception, SystemExit) as error:
            raise RefusedError("usage", f"{setup} of {source} failed: {blame(error, path)}.") from error
        if state is not None:
            call = partial(found[0], state)
    return Called(
        call,
        {
            "runtime": "python",
            "version": platform.python_version(),
            "delegate": None,
            "threads": None,
            "model": f"{source}:{function}",
            "model_sha256": digest(file) if file and Path(file).is_file() else None,
            "batch": None,
            "setup": setup,
        },
        lambda error: RefusedError("incomplete", f"{function} of {source} failed: {blame(error, file)}."),
    )


def _attribute(module: Any, source: str, name: str) -> Any:
    try:
        function = operator.attrgetter(name)(module)
    except AttributeError:
        raise RefusedError("usage", f"{source} has no function {name!r}.") from None
    if not callable(function):
        raise RefusedError("usage", f"{name} of {source} is {type(function).__name__}, not a function.")
    return function


def blame(error: BaseException, file: Optional[str]) -> str:
    """The exception, and the last line of the user's file that it went through."""
    said = f"{type(error).__name__}: {brief(error)}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{said} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    theirs = [frame for frame in frames if frame.filename == file] or frames
    return f"{said} ({theirs[-1].filename}:{theirs[-1].lineno} in {theirs[-1].name})" if theirs else said


# -- command ----------------------------------------------------------------------------------------------------------


class Command:
    """One window per run of a command, whose output goes through a pseudo-terminal so that each line comes at once."""

    def __init__(self, argv: List[str], folder: Optional[str]) -> None:
        import shutil

        self._argv = argv
        self._folder = str(Path(folder or "~").expanduser())
        if not Path(self._folder).is_dir():
            raise RefusedError("usage", f"There is no folder {folder}.", "Check the path on the board.")
        word = str(Path(argv[0]).expanduser()) if argv[0].startswith("~") else argv[0]
        beside = str(Path(self._folder, word)) if os.sep in word else word
        program = shutil.which(beside)
        if program is None:
            raise RefusedError("usage", f"There is no command {argv[0]!r}.", "Check its name and the board's PATH.")
        self._program = str(Path(program).absolute())
        self.description: Fields = {
            "runtime": "command",
            "version": None,
            "delegate": None,
            "threads": None,
            "model": Path(argv[0]).name,
            "model_sha256": digest(self._program),
            "batch": None,
            "argv": argv,
        }

    def run(self, count: int, per_window: int, lead: int) -> Fields:
        """Stops at the first exit code other than 0; a signal is a negative one."""
        answer: Fields = {"begin": [], "end": [], "codes": [], "lines": [], "lines_not_kept": 0}
        while len(answer["codes"]) < count and not any(answer["codes"]):
            self._once(answer)
        return answer

    def _once(self, answer: Fields) -> None:
        import tty

        ours, theirs = os.openpty()
        tty.setraw(theirs)
        try:
            started = clock()
            process = subprocess.Popen(
                self._argv,
                executable=self._program,
                cwd=self._folder,
                env=dict(os.environ, TERM="dumb"),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            os.close(theirs)
            raise RefusedError("usage", f"{self._argv[0]} cannot be executed: {brief(error)}.") from error
        _groups.append(process.pid)
        os.close(theirs)
        reader = threading.Thread(target=_listen, args=(ours, answer))
        reader.daemon = True
        reader.start()
        # Its number stays taken until it is reaped, so the group that is killed is its own.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        ended = clock()
        reader.join(LINGER_S)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        reader.join(LINGER_S)
        _groups.remove(process.pid)
        answer["begin"].append(started)
        answer["end"].append(ended)
        answer["codes"].append(process.wait())


def _listen(terminal: int, answer: Fields) -> None:
    part = b""
    try:
        while True:
            try:
                raw = os.read(terminal, READ_BYTES)
            except OSError:  # Linux: nobody has the other end open any more
                raw = b""
            now = clock()
            lines = re.split(b"[\r\n]+", part + raw)
            part = lines.pop()
            if len(part) > MAX_LINE or not raw:
                lines.append(part)
                part = b""
            for line in lines:
                text = line.decode("utf-8", "replace").strip()[:MAX_LINE]
                if len(answer["lines"]) >= MAX_LINES:
                    answer["lines_not_kept"] += 1
                elif text:
                    answer["lines"].append([now, text])
            if not raw:
                return
    finally:
        os.close(terminal)


# -- files that are read again and again -----------------------------------------------------------------------------


def files(patterns: List[str], commands: Sequence[List[str]] = ()) -> Fields:
    """What the files are that fit, and what commands say.

    `files` are [path, text or null, name of the error or null]; a folder has its real path. `outputs`, one for each
    command, are [exit code or null, what it printed, what it said on stderr or the name of the error].
    """
    rows: List[Any] = []
    # A Path cannot glob an absolute pattern.
    for path in [path for pattern in patterns for path in sorted(glob.glob(pattern))]:  # noqa: PTH207
        if Path(path).is_dir():
            rows.append([path, os.path.realpath(path), None])
            continue
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                rows.append([path, os.read(file, MAX_LINE).decode("utf-8", "replace").strip("\0 \n"), None])
            finally:
                os.close(file)
        except OSError as error:
            rows.append([path, None, _name(error)])
    return {"files": rows, "outputs": [_said(argv) for argv in commands]}


def _said(argv: List[str]) -> List[Any]:
    try:
        done = _finished(argv, subprocess.PIPE)
    except OSError as error:
        return [None, "", _name(error)]
    return [done.returncode] + [raw[:MAX_LINE].decode("utf-8", "replace") for raw in (done.stdout, done.stderr)]


def _finished(argv: List[str], stderr: int) -> "subprocess.CompletedProcess[bytes]":
    """A command that has run to its end. Raises OSError where it cannot be started or takes too long."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, timeout=OUTPUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _output(argv: List[str]) -> bytes:
    """What a command prints. Raises OSError, EIO where its exit code is not 0."""
    done = _finished(argv, subprocess.DEVNULL)
    if done.returncode:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return done.stdout


def poll(channel: Channel, sources: List[Tuple[str, Any]], interval_ns: int, width: int) -> Fields:
    """Read all sources in each slot of a grid and send a round, in lines of `width` bytes, until any request comes.

    A source is ["number", path] of a file that holds an integer, ["text", path], or ["output", argv] of a command.
    After `{"polling": {"first_ns": DUE}}`, when slot 0 is due, rounds are `{"poll": [slot, [what each holds], slot]}`
    as [before, after, text or null, name of the error or null]. A round that is a slot or more late belongs to the
    slot that it is in. A file is opened once and read at its beginning, as sysfs wants it.
    """
    handles: List[int] = []
    try:
        readers: List[Tuple[str, Callable[[], bytes]]] = []
        for kind, what in sources:
            if kind == "output":
                readers.append((kind, partial(_output, what)))
            else:
                handles.append(_opened(what))
                readers.append((kind, partial(os.pread, handles[-1], MAX_LINE, 0)))
        first = clock() + interval_ns
        channel.send({"polling": {"first_ns": first}})
        slot = rounds = skipped = 0
        while channel.line(max(0.0, (first + slot * interval_ns - clock()) * 1e-9)) is None:
            # It may wake a hair early.
            while clock() < first + slot * interval_ns:
                pass
            late = (clock() - first) // interval_ns - slot
            slot += late
            skipped += late
            reads = [_held(kind, read) for kind, read in readers]
            line = json.dumps({"poll": [slot, reads, slot]}, separators=(",", ":")).encode("ascii")
            channel.write(line.ljust(width - 1) + b"\n")
            slot += 1
            rounds += 1
        return {"rounds": rounds, "late": skipped}
    finally:
        for file in handles:
            os.close(file)


def _held(kind: str, read: Callable[[], bytes]) -> List[Any]:
    """The clock before and after, what a source holds, and the name of the error."""
    before = clock()
    try:
        raw, failure = read(), None
    except OSError as error:
        raw, failure = b"", _name(error)
    after = clock()
    text = raw.decode("utf-8", "replace").strip("\0 \n")
    if failure is None and not text:
        failure = "ENODATA"
    elif failure is None and kind == "number" and re.match(r"-?[0-9]+\Z", text) is None:
        failure = "EDOM"
    elif len(json.dumps(text)) - 2 > LIMITS[kind]:
        failure = "EMSGSIZE"
    return [before, after, None if failure else text, failure]


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        kind = "access" if isinstance(error, PermissionError) else "usage"
        raise RefusedError(kind, f"{path} cannot be read: {error.strerror}.") from error


# -- the board --------------------------------------------------------------------------------------------------------


def hello() -> Fields:
    return {
        "host": platform.node() or None,
        "machine": platform.machine() or None,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "governor": cpu_governor(),
        "pid": os.getpid(),
    }


def cpu_model() -> Optional[str]:
    cpuinfo = _text(Path("/proc/cpuinfo")) or ""
    for key in ("model name", "Model"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if match:
            return match.group(1).strip()
    return _text(Path("/proc/device-tree/model"))


def cpu_governor() -> Optional[str]:
    files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return "+".join(sorted({text for text in map(_text, files) if text})) or None


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def digest(path: str) -> str:
    total = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                total.update(part)
    except FileNotFoundError:
        raise RefusedError("usage", f"There is no file {path}.", "Check the path on the board.") from None
    except OSError as error:
        raise RefusedError("usage", f"{path} cannot be read: {error.strerror}.") from error
    return total.hexdigest()


def brief(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]


# -- requests ---------------------------------------------------------------------------------------------------------

OPENERS: Dict[str, Callable[..., Any]] = {"tflite": open_tflite, "python": open_python, "command": Command}


def serve(channel: Channel) -> None:
    workload: Any = None
    while True:
        line = channel.line() or b""
        if line == b"stop":
            continue  # what it was to stop has just ended by itself
        request = json.loads(line.decode("utf-8"))
        operation = request.pop("op")
        try:
            if operation == "open":
                with Watch(channel.stdin):
                    workload = OPENERS[request.pop("kind")](**request)
                answer = dict(workload.description)
            elif operation == "run":
                with Watch(channel.stdin):
                    answer = workload.run(**request)
            elif operation == "poll":
                answer = poll(channel, **request)
            elif operation == "files":
                answer = files(**request)
            elif operation == "hello":
                answer = hello()
            else:
                raise RefusedError("data", f"The agent knows no {operation!r}.")
        except RefusedError as refused:
            channel.send({"error": refused.fields})
        except Exception as error:
            what = f"The agent failed at {operation}: {blame(error, __file__)}."
            channel.send({"error": {"kind": "data", "what": what, "remedy": ""}})
        else:
            channel.send({"ok": answer})


def main() -> None:
    # Nothing is left on the board but this file: no __pycache__ beside the user's.
    sys.dont_write_bytecode = True
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, abandon)
    with contextlib.suppress(OSError):
        os.chdir(str(Path.home()))
    channel = Channel()
    channel.write(MARK + json.dumps(hello()).encode("ascii") + b"\n")
    serve(channel)


if __name__ == "__main__":
    main()
