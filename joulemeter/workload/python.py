"""Any Python callable: `python:MODULE:FUNCTION` or `python:FILE.py:FUNCTION`, called without arguments.

The current folder can be imported from, and a file's own folder too. What the function named by the option `setup`
returns is passed to it, unless that is None. One call is one inference.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from joulemeter.errors import IncompleteError, JouleMeterError, UsageError
from joulemeter.workload import Edge, Stamps, Workload, cpu_governor, cpu_model, refuse_unknown_options
from joulemeter.workload.stamping import Around, stamp

Function = Callable[..., object]

# Calling one of these only makes an object; its body would not run.
_LAZY: Mapping[str, Callable[[object], bool]] = {
    "a coroutine function": inspect.iscoroutinefunction,
    "an asynchronous generator": inspect.isasyncgenfunction,
    "a generator": inspect.isgeneratorfunction,
}


def create(target: str, options: Mapping[str, str]) -> PythonCall:
    """`MODULE:FUNCTION` or `FILE.py:FUNCTION` with the option setup. Raises UsageError."""
    refuse_unknown_options("python", options, ("setup",))
    source, colon, function = target.rpartition(":")
    if not colon or not source or not function:
        raise UsageError(
            f"{target!r} does not name a function.", "Write python:MODULE:FUNCTION or python:FILE.py:FUNCTION."
        )
    return PythonCall(source, function, setup=options.get("setup"))


class PythonCall(Workload):
    """A function of a module or of a file, in this process. It may be an attribute of one: `Class.method`."""

    def __init__(self, source: str, function: str, *, setup: str | None = None) -> None:
        self.source = source
        self.function = function
        self.setup = setup
        self._call: Function | None = None
        self._files: set[str] = set()
        self._sha256: str | None = None
        self._around: Around | None = None

    def prepare(self) -> None:
        """Raises UsageError: no such module, file or function, one that fails to import or cannot be called."""
        if self._call is not None:
            return
        module = self._module()
        function = self._attribute(module, self.function)
        self._remember(module, function)
        arguments: tuple[object, ...] = ()
        if self.setup is not None:
            setup = self._attribute(module, self.setup)
            self._check(self.setup, setup, ())
            with self._blamed(f"{self.setup} of {self.source} failed", UsageError):
                state = setup()
            arguments = () if state is None else (state,)
        self._check(self.function, function, arguments)
        self._call = partial(function, *arguments) if arguments else function

    def describe(self) -> dict[str, Any]:
        self.prepare()
        return {
            "runtime": "python",
            "version": platform.python_version(),
            "delegate": None,
            "threads": None,
            "model": f"{self.source}:{self.function}",
            "model_sha256": self._sha256,
            "batch": None,
            "cpu": cpu_model(),
            "governor": cpu_governor(),
            "setup": self.setup,
        }

    def warm_up(self, count: int) -> None:
        call = self._prepared()
        with self._blamed(f"{self.function} of {self.source} failed while warming up", IncompleteError):
            for _ in range(count):
                call()

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """Raises IncompleteError when the function raises, which names it and the line."""
        call = self._prepared()
        with self._blamed(f"{self.function} of {self.source} failed inside a window", IncompleteError):
            return stamp(call, count, inferences_per_window or 1, self._around)

    def edges(self, edge: Edge) -> None:
        self._around = Around(edge=edge)

    def close(self) -> None:
        self._call = None

    def _prepared(self) -> Function:
        self.prepare()
        if self._call is None:
            raise RuntimeError("prepare() returned without a function")
        return self._call

    def _module(self) -> ModuleType:
        importlib.invalidate_caches()
        if self.source.endswith(".py"):
            return self._file(Path(self.source))
        _make_importable(Path.cwd())
        try:
            spec = importlib.util.find_spec(self.source)
        except ModuleNotFoundError:
            spec = None
        except Exception as error:
            # A dotted name imports the packages above it.
            raise self._blame(f"{self.source} cannot be imported", UsageError, error) from error
        if spec is None:
            raise UsageError(
                f"There is no Python module {self.source!r}.",
                f"Modules are looked for in {Path.cwd()} and among the packages of {sys.executable}.",
            )
        with self._blamed(f"{self.source} cannot be imported", UsageError):
            return importlib.import_module(self.source)

    def _file(self, path: Path) -> ModuleType:
        if not path.is_file():
            raise UsageError(f"There is no Python file {path}.", "Check the path.")
        _make_importable(Path.cwd())
        _make_importable(path.resolve().parent)
        spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
        if spec is None or spec.loader is None:
            raise UsageError(f"{path} is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        self._files = {str(path.resolve())}
        # dataclasses and pickle look a class's module up there; a module that is there already keeps its place.
        sys.modules.setdefault(path.stem, module)
        try:
            with self._blamed(f"{path} cannot be imported", UsageError):
                spec.loader.exec_module(module)
        except BaseException:
            if sys.modules.get(path.stem) is module:
                del sys.modules[path.stem]
            raise
        return module

    def _attribute(self, module: ModuleType, name: str) -> Function:
        try:
            function = attrgetter(name)(module)
        except AttributeError as error:
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"Did you mean {close[0]}?" if close else f"It has {', '.join(sorted(known)[:10]) or 'none'}."
            raise UsageError(f"{self.source} has no function {name!r}.", remedy) from error
        if not callable(function):
            raise UsageError(f"{name} of {self.source} is {type(function).__name__}, not a function.")
        return function  # type: ignore[no-any-return]

    def _remember(self, module: ModuleType, function: Function) -> None:
        """The files whose lines an error is blamed on, and what the function's own file holds."""
        plain = inspect.unwrap(function)
        code = getattr(plain, "__code__", None)
        file = code.co_filename if code is not None else getattr(module, "__file__", None)
        self._files |= {name for name in (file, getattr(module, "__file__", None)) if name}
        if file is not None and Path(file).is_file():
            self._sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()

    def _check(self, name: str, function: Function, arguments: tuple[object, ...]) -> None:
        for kind, matches in _LAZY.items():
            if matches(function):
                raise UsageError(
                    f"{name} of {self.source} is {kind}: calling it does not run it.",
                    "Name a plain function that runs one inference to its end.",
                )
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):
            return  # some built-in functions do not tell
        try:
            signature.bind(*arguments)
        except TypeError as error:
            given = f"with what {self.setup} returned" if arguments else "without arguments"
            raise UsageError(
                f"{name}{signature} of {self.source} cannot be called {given}: {error}.",
                "Write a function around it, or have one named by the option setup make its argument.",
            ) from error

    @contextmanager
    def _blamed(self, what: str, kind: type[JouleMeterError]) -> Iterator[None]:
        """Whatever the user's code raises becomes `kind`; Ctrl-C and this project's own errors pass."""
        try:
            yield
        except JouleMeterError:
            raise
        except (Exception, SystemExit) as error:
            raise self._blame(what, kind, error) from error

    def _blame(self, what: str, kind: type[JouleMeterError], error: BaseException) -> JouleMeterError:
        said = " ".join(str(error).split())[:300].rstrip(".")
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        place = self._place(error)
        kept = " What was recorded until then is kept." if kind is IncompleteError else ""
        return kind(f"{what}: {reason}{f' ({place})' if place else ''}.", f"Correct it and try again.{kept}")

    def _place(self, error: BaseException) -> str | None:
        """File, line and function of the last of the user's frames; where none is, of the last frame of all."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}:{error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if frame.filename in self._files] or [
            frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename
        ]
        return f"{theirs[-1].filename}:{theirs[-1].lineno} in {theirs[-1].name}" if theirs else None


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
