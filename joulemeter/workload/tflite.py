"""TensorFlow Lite models on this host, by whichever runtime with its Interpreter is installed.

The runtime is part of the result: the same file on the same machine is several times faster in one than in another.

Inputs are drawn once from a seeded generator, uniform over what the tensor can hold: all values of an 8 or 16 bit
integer, both of a bool, [0, 1) of a float. Wider integers are usually indices or lengths, so they are 0 or 1, which
every vocabulary has.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import Stamps, Workload, cpu_governor, cpu_model, refuse_unknown_options, whole
from joulemeter.workload.stamping import stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A package that has the Interpreter, and the distribution that brings it.

    `verifies` says that it checks a model before using it; the others crash on most damaged ones.
    """

    package: str
    module: str
    interpreter: str
    distribution: str
    verifies: bool = False


# The order of preference. The full TensorFlow comes last: its own Interpreter is deprecated for the first one.
RUNTIMES = {
    "litert": Runtime(
        package="ai_edge_litert",
        module="ai_edge_litert.interpreter",
        interpreter="Interpreter",
        distribution="ai-edge-litert",
        verifies=True,
    ),
    "tflite-runtime": Runtime(
        package="tflite_runtime",
        module="tflite_runtime.interpreter",
        interpreter="Interpreter",
        distribution="tflite-runtime",
    ),
    "tensorflow": Runtime(
        package="tensorflow", module="tensorflow", interpreter="lite.Interpreter", distribution="tensorflow"
    ),
}


_TRIAL = """
import importlib, operator, pathlib, sys
module, name, path, threads = sys.argv[1:]
try:
    make = operator.attrgetter(name)(importlib.import_module(module))
    interpreter = make(model_content=pathlib.Path(path).read_bytes(), num_threads=int(threads))
    interpreter.allocate_tensors()
    interpreter.invoke()
except Exception as error:
    print(error)
    sys.exit(1)
"""


class Interpreter(Protocol):
    """What is used of the runtimes' Interpreter."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def resize_tensor_input(self, input_index: int, tensor_size: list[int]) -> None: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int) -> NDArray[Any]: ...
    def invoke(self) -> None: ...


def create(target: str, options: Mapping[str, str]) -> Tflite:
    """The model file `target` with the options runtime, threads, batch and seed. Raises UsageError."""
    refuse_unknown_options("tflite", options, ("runtime", "threads", "batch", "seed"))
    if not target:
        raise UsageError("A tflite workload needs a model.", "Write tflite:FILE.")
    return Tflite(
        Path(target),
        runtime=options.get("runtime"),
        threads=whole("threads", options.get("threads", "1"), 1),
        batch=whole("batch", options["batch"], 1) if "batch" in options else None,
        seed=whole("seed", options.get("seed", "0"), 0),
    )


class Tflite(Workload):
    """A .tflite file in an interpreter of this process. `batch` resizes the first dimension of every input."""

    def __init__(
        self, path: Path, *, runtime: str | None = None, threads: int = 1, batch: int | None = None, seed: int = 0
    ) -> None:
        self.path = path
        self.threads = threads
        self.batch = batch
        self.seed = seed
        self._asked_runtime = runtime
        self._runtime: Runtime | None = None
        self._interpreter: Interpreter | None = None
        self._model_sha256: str | None = None

    def prepare(self) -> None:
        if self._interpreter is not None:
            return
        runtime = choose_runtime(self._asked_runtime)
        content = self._content()
        if not runtime.verifies:
            self._try_elsewhere(runtime)
        make: Callable[..., Interpreter] = attrgetter(runtime.interpreter)(importlib.import_module(runtime.module))
        try:
            interpreter = make(model_content=content, num_threads=self.threads)
        except (ValueError, RuntimeError) as error:
            raise self._unloadable(runtime, str(error)) from error
        self._allocate(interpreter)
        generator = np.random.default_rng(self.seed)
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], self._random(tensor, generator))
        self._runtime, self._interpreter = runtime, interpreter
        self._model_sha256 = hashlib.sha256(content).hexdigest()

    def describe(self) -> dict[str, Any]:
        interpreter, runtime = self._ready()
        return {
            "runtime": runtime.distribution,
            "version": _version(runtime),
            "delegate": None,
            "threads": self.threads,
            "model": self.path.name,
            "model_sha256": self._model_sha256,
            "batch": _batch(interpreter),
            "cpu": cpu_model(),
            "governor": cpu_governor(),
            "seed": self.seed,
        }

    def warm_up(self, count: int) -> None:
        invoke = self._ready()[0].invoke
        with self._explained():
            for _ in range(count):
                invoke()

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        invoke = self._ready()[0].invoke
        with self._explained():
            return stamp(invoke, count, inferences_per_window or 1)

    def inputs(self) -> list[NDArray[Any]]:
        """A copy of every input tensor as it was drawn."""
        interpreter, _ = self._ready()
        return [interpreter.get_tensor(tensor["index"]) for tensor in interpreter.get_input_details()]

    def outputs(self) -> list[NDArray[Any]]:
        """A copy of every output tensor of the last inference."""
        interpreter, _ = self._ready()
        return [interpreter.get_tensor(tensor["index"]) for tensor in interpreter.get_output_details()]

    def close(self) -> None:
        self._interpreter = None

    def _ready(self) -> tuple[Interpreter, Runtime]:
        self.prepare()
        if self._interpreter is None or self._runtime is None:
            raise RuntimeError("prepare() returned without an interpreter")
        return self._interpreter, self._runtime

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"{self.path} does not run: {_brief(str(error))}.") from error

    def _content(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as error:
            raise UsageError(f"There is no model {self.path}.", "Check the path.") from error
        except OSError as error:
            raise UsageError(f"The model {self.path} cannot be read: {error.strerror}.") from error
        if not content:
            raise UsageError(f"{self.path} is not a TensorFlow Lite model: it is empty.", "Convert or fetch it again.")
        return content

    def _try_elsewhere(self, runtime: Runtime) -> None:
        """Run the model once in a process of its own: only what does not crash that one is let into this one."""
        command = [sys.executable, "-c", _TRIAL, runtime.module, runtime.interpreter, str(self.path), str(self.threads)]
        trial = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
        if trial.returncode != 0:
            raise self._unloadable(runtime, trial.stdout if trial.returncode == 1 else "it crashes on it")

    def _unloadable(self, runtime: Runtime, why: str) -> UsageError:
        return UsageError(
            f"{self.path} is not a TensorFlow Lite model that {runtime.distribution} can load: {_brief(why)}.",
            "Convert or fetch it again.",
        )

    def _allocate(self, interpreter: Interpreter) -> None:
        try:
            if self.batch is not None:
                for tensor in interpreter.get_input_details():
                    if len(tensor["shape"]) == 0:
                        raise UsageError(
                            f"The input {tensor['name']!r} of {self.path} is a single number: it has no batch."
                        )
                    interpreter.resize_tensor_input(tensor["index"], [self.batch, *map(int, tensor["shape"][1:])])
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            if self.batch is not None:
                raise UsageError(
                    f"{self.path} cannot run with a batch of {self.batch}: {_brief(str(error))}.",
                    "Leave the batch out, or convert the model with a batch dimension that may vary.",
                ) from error
            raise UsageError(
                f"{self.path} cannot be prepared by this runtime: {_brief(str(error))}.",
                "Convert the model with built-in operators only, or try another runtime.",
            ) from error

    def _random(self, tensor: dict[str, Any], generator: np.random.Generator) -> NDArray[Any]:
        kind = np.dtype(tensor["dtype"])
        shape = tuple(tensor["shape"])
        if kind.kind == "f":
            return generator.random(shape).astype(kind)
        if kind.kind in "iu" and kind.itemsize <= 2:
            limits = np.iinfo(kind)
            return generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
        if kind.kind in "iub":
            return generator.integers(0, 1, shape, endpoint=True).astype(kind)
        raise UsageError(
            f"The input {tensor['name']!r} of {self.path} holds {kind}, which cannot be filled with random values."
        )


def choose_runtime(name: str | None) -> Runtime:
    """The runtime of that name, or the first one that is installed. Raises UsageError or MissingExtraError."""
    if name is None:
        for runtime in RUNTIMES.values():
            if importlib.util.find_spec(runtime.package) is not None:
                return runtime
        raise _missing("No TensorFlow Lite runtime is installed.", "ai-edge-litert")
    if name not in RUNTIMES:
        raise UsageError(f"There is no TensorFlow Lite runtime {name!r}.", f"Known are {', '.join(RUNTIMES)}.")
    runtime = RUNTIMES[name]
    if importlib.util.find_spec(runtime.package) is None:
        raise _missing(f"The runtime {name} is not installed.", runtime.distribution)
    return runtime


def _missing(what: str, distribution: str) -> MissingExtraError:
    return MissingExtraError(what, distribution)


def _version(runtime: Runtime) -> str | None:
    try:
        return importlib.metadata.version(runtime.distribution)
    except importlib.metadata.PackageNotFoundError:
        # tensorflow-cpu, tf-nightly and builds from source go by other names.
        version = getattr(importlib.import_module(runtime.package), "__version__", None)
        return None if version is None else str(version)


def _batch(interpreter: Interpreter) -> int | None:
    """The first dimension that all inputs share, or None."""
    shapes = [tuple(tensor["shape"]) for tensor in interpreter.get_input_details()]
    firsts = {int(shape[0]) if shape else None for shape in shapes}
    return firsts.pop() if len(firsts) == 1 else None


def _brief(text: str) -> str:
    """The text on one line, without its full stop."""
    return " ".join(text.split()).rstrip(".")[:300]
