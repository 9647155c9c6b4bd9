"""TensorFlow Lite models on this host, by whichever runtime with its Interpreter is installed.

The runtime is part of the result: the same file on the same machine is several times faster in one than in another. So
are the delegates. What they took over is seen in the graph: each part that a delegate runs is a node DELEGATE of its
own, and those that the runtime's default delegate (XNNPACK) adds come when the tensors are allocated, after those of
the delegates asked for. A delegate that takes no operator over is an error, since the processor's figures would then
stand for the accelerator's.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Protocol, Unpack

import msgspec
import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import model
from joulemeter.workload.inputs import Set, TensorSpec
from joulemeter.workload.model import Common, Model, Reading, Session, brief


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A package that has the Interpreter, and the distribution that brings it.

    `verifies` says that it checks a model before using it; the others crash on most damaged ones.
    """

    package: str
    module: str
    interpreter: str
    distribution: str
    load_delegate: str = "load_delegate"
    resolver: str = "OpResolverType"
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
        package="tensorflow",
        module="tensorflow",
        interpreter="lite.Interpreter",
        distribution="tensorflow",
        load_delegate="lite.experimental.load_delegate",
        resolver="lite.experimental.OpResolverType",
    ),
}

# What a library of a delegate exports: tensorflow/lite/delegates/external/external_delegate_interface.h.
PLUGIN = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")

# What helps with a library whose name has this in it: when it cannot be loaded, when it finds no device, and when it
# takes nothing over. https://coral.ai/docs/accelerator/get-started, https://coral.ai/docs/m2/get-started (the group
# apex), https://coral.ai/docs/edgetpu/compiler; the USB numbers are in google-coral/pycoral issue 72.
REMEDIES: Mapping[str, tuple[str, str, str]] = {
    "libedgetpu": (
        "Install the package libedgetpu1-std from Coral's package source, as coral.ai/docs/accelerator/get-started "
        "says, and plug the accelerator in again.",
        "Is the Edge TPU there (lsusb shows 1a6e:089a or 18d1:9302; a PCIe one is /dev/apex_0), is it free, and may "
        "you use it? A USB one may need a udev rule, /dev/apex_0 the group apex.",
        "Compile the model for the Edge TPU with edgetpu_compiler.",
    ),
    "": (
        "Give the path of a library that exports a TensorFlow Lite delegate for this processor.",
        "Check its options and that its device is there.",
        "Convert the model to operators and types that this delegate has, or leave it out.",
    ),
}


class Interpreter(Protocol):
    """What is used of the runtimes' Interpreter."""

    def allocate_tensors(self) -> None: ...
    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def resize_tensor_input(self, input_index: int, tensor_size: list[int]) -> None: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int) -> NDArray[Any]: ...
    def invoke(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """A library, by its path or by a name that the dynamic loader finds, and what it is told."""

    library: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an Interpreter is made. `xnnpack` is None where the runtime may do as it does."""

    runtime: Runtime
    threads: int = 1
    batch: int | None = None
    delegates: tuple[Delegate, ...] = ()
    xnnpack: bool | None = None


def delegates(name: str, text: str) -> tuple[Delegate, ...]:
    """PATH[,key:value...], several parted by ";". Raises UsageError."""
    found = []
    for one in text.split(";"):
        library, *pairs = one.split(",")
        split = [pair.partition(":") for pair in pairs]
        if not library or any(not key or not colon for key, colon, _ in split):
            raise UsageError(f"{name} cannot be {one!r}.", "Write PATH[,key:value...], several parted by ';'.")
        found.append(Delegate(library=library, options={key: value for key, _, value in split}))
    return tuple(found)


def create(target: str, options: Mapping[str, str]) -> Tflite:
    """The model file `target` with the options of Tflite and those of every model. Raises UsageError."""
    return model.create(Tflite, target, options)


class Tflite(Model):
    """A .tflite file in an interpreter of this process. `batch` resizes the first dimension of every input."""

    kind = "tflite"
    what = "a TensorFlow Lite model"
    options: ClassVar[Mapping[str, Reading]] = {
        "runtime": model.words,
        "delegate": delegates,
        "xnnpack": partial(model.choice, {"on": True, "off": False}),
    }

    def __init__(
        self,
        path: Path,
        *,
        runtime: str | None = None,
        delegate: tuple[Delegate, ...] = (),
        xnnpack: bool | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(path, **common)
        self._asked = runtime
        self._delegates = delegate
        self._xnnpack = xnnpack

    def _open(self, content: bytes) -> Session:
        recipe = Recipe(
            runtime=choose_runtime(self._asked),
            threads=self.threads,
            batch=self.batch,
            delegates=tuple(_found(delegate) for delegate in self._delegates),
            xnnpack=self._xnnpack,
        )
        if recipe.delegates or not recipe.runtime.verifies:
            self._try_elsewhere(recipe)
        try:
            return TfliteSession(recipe, content, self.path)
        except (ValueError, RuntimeError) as error:
            raise self._unloadable(recipe.runtime.distribution, error) from error

    def _try_elsewhere(self, recipe: Recipe) -> None:
        """Run the model once in a process of its own: only what does not crash that one is let into this one."""
        call = "import sys; from joulemeter.workload.tflite import trial; trial(*sys.argv[1:])"
        command = [sys.executable, "-c", call, msgspec.json.encode(recipe).decode(), str(self.path)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode in (0, 1):
            return  # What it raised is raised here, too.
        if not recipe.delegates:
            raise self._unloadable(recipe.runtime.distribution, "it crashes on it")
        raise UsageError(
            f"{_names(recipe.delegates)} and {recipe.runtime.distribution} crash on {self.path}.",
            "Use a delegate built for this runtime's version, and a sound model.",
        )


def trial(recipe: str, path: str) -> None:
    """What is tried in a process of its own."""
    TfliteSession(msgspec.json.decode(recipe, type=Recipe), Path(path).read_bytes(), Path(path)).invoke()


class TfliteSession(Session):
    """Raises UsageError, or ValueError or RuntimeError for what is no model."""

    def __init__(self, recipe: Recipe, content: bytes, path: Path) -> None:
        self._recipe = recipe
        self._interpreter = _interpreter(recipe, content, path)
        own = _delegated(self._interpreter)
        if recipe.delegates and own == 0:
            raise UsageError(
                f"{_names(recipe.delegates)} takes over no operator of {path}: it would run on the processor.",
                _remedy(recipe.delegates[0])[2],
            )
        _allocate(self._interpreter, recipe.batch, path)
        every = _delegated(self._interpreter)
        self._xnnpack = None if own is None or every is None else every > own
        if recipe.xnnpack and self._xnnpack is False:
            raise UsageError(
                f"XNNPACK takes over no operator of {path} in {recipe.runtime.distribution}.",
                "Leave xnnpack=on out, or try another runtime.",
            )
        if recipe.xnnpack is False and self._xnnpack is None:
            self._xnnpack = False
        self._in = [int(tensor["index"]) for tensor in self._interpreter.get_input_details()]
        self._out = [int(tensor["index"]) for tensor in self._interpreter.get_output_details()]
        self.inputs = [_spec(tensor) for tensor in self._interpreter.get_input_details()]
        self.invoke = self._interpreter.invoke

    def fill(self, values: Set) -> None:
        for index, value in zip(self._in, values, strict=True):
            self._interpreter.set_tensor(index, value)

    def outputs(self) -> list[NDArray[Any]]:
        return [self._interpreter.get_tensor(index) for index in self._out]

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": self._recipe.runtime.distribution,
            "version": _version(self._recipe.runtime),
            "delegate": self._delegate(),
            "threads": self._recipe.threads,
        }

    def _delegate(self) -> str | None:
        """What is active, joined by "+"; "none", or None where this runtime does not show it."""
        names = [delegate.library for delegate in self._recipe.delegates]
        if self._xnnpack is None and not names:
            return None
        return "+".join([*names, *(["XNNPACK"] if self._xnnpack else [])]) or "none"


def _interpreter(recipe: Recipe, content: bytes, path: Path) -> Interpreter:
    runtime = recipe.runtime
    module = importlib.import_module(runtime.module)
    make: Callable[..., Interpreter] = attrgetter(runtime.interpreter)(module)
    more: dict[str, Any] = {}
    if recipe.xnnpack is False:
        try:
            resolvers = attrgetter(runtime.resolver)(module)
            more["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        except AttributeError as error:
            raise UsageError(
                f"{runtime.distribution} {_version(runtime)} cannot leave XNNPACK out.", "Install a newer one."
            ) from error
    if recipe.delegates:
        load = attrgetter(runtime.load_delegate)(module)
        more["experimental_delegates"] = [_loaded(delegate, load) for delegate in recipe.delegates]
    with warnings.catch_warnings():
        # TensorFlow warns that its Interpreter will move; it is asked for by name.
        warnings.simplefilter("ignore")
        try:
            return make(model_content=content, num_threads=recipe.threads, **more)
        except RuntimeError as error:
            if not recipe.delegates:
                raise
            # A file that is no model is a ValueError.
            raise UsageError(
                f"{_names(recipe.delegates)} cannot run {path}: {brief(error)}.", _remedy(recipe.delegates[0])[1]
            ) from error


def _found(delegate: Delegate) -> Delegate:
    """The same delegate, once its library is known to load and to be one.

    A runtime's own loader says of most libraries only that they failed. Raises UsageError.
    """
    # The loader looks for a name without a slash in the system's folders alone.
    path = Path(delegate.library).expanduser()
    library = str(path.absolute()) if path.is_file() else delegate.library
    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        raise UsageError(
            f"The delegate {delegate.library} cannot be loaded: {brief(error)}.", _remedy(delegate)[0]
        ) from error
    for name in PLUGIN:
        if not hasattr(loaded, name):
            raise UsageError(
                f"{delegate.library} is no TensorFlow Lite delegate: it does not export {name}.", _remedy(delegate)[0]
            )
    return Delegate(library=library, options=delegate.options)


def _loaded(delegate: Delegate, load: Callable[..., object]) -> object:
    try:
        return load(delegate.library, delegate.options)
    except (ValueError, RuntimeError, OSError) as error:
        said = brief(error).removeprefix(f"Failed to load delegate from {delegate.library}").strip()
        raise UsageError(
            f"The delegate {delegate.library} refuses to start: {said or 'it gives no reason'}.", _remedy(delegate)[1]
        ) from error


def _names(several: tuple[Delegate, ...]) -> str:
    return f"The delegate {' with '.join(delegate.library for delegate in several)}"


def _remedy(delegate: Delegate) -> tuple[str, str, str]:
    return next(remedies for name, remedies in REMEDIES.items() if name in Path(delegate.library).name)


def _delegated(interpreter: Interpreter) -> int | None:
    """How many nodes delegates run; None where this runtime does not list its nodes."""
    listed: Callable[[], list[dict[str, Any]]] | None = getattr(interpreter, "_get_ops_details", None)
    return None if listed is None else sum(node["op_name"] == "DELEGATE" for node in listed())


def _allocate(interpreter: Interpreter, batch: int | None, path: Path) -> None:
    try:
        if batch is not None:
            for tensor in interpreter.get_input_details():
                size = model.sized(path, tensor["name"], [int(n) for n in tensor["shape"]], batch, resizes=True)
                interpreter.resize_tensor_input(tensor["index"], list(size))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        if batch is not None:
            raise UsageError(
                f"{path} cannot run with a batch of {batch}: {brief(error)}.",
                "Leave the batch out, or convert the model with a batch dimension that may vary.",
            ) from error
        raise UsageError(
            f"{path} cannot be prepared by this runtime: {brief(error)}.",
            "Convert the model with built-in operators only, or try another runtime.",
        ) from error


def _spec(tensor: dict[str, Any]) -> TensorSpec:
    scale, zero_point = tensor.get("quantization", (0.0, 0))
    return TensorSpec(
        name=tensor["name"],
        shape=tuple(map(int, tensor["shape"])),
        dtype=np.dtype(tensor["dtype"]),
        scale=float(scale) or None,
        zero_point=int(zero_point),
    )


def choose_runtime(name: str | None) -> Runtime:
    """The runtime of that name, or the first one that is installed. Raises UsageError or MissingExtraError."""
    if name is None:
        for runtime in RUNTIMES.values():
            if importlib.util.find_spec(runtime.package) is not None:
                return runtime
        raise MissingExtraError("No TensorFlow Lite runtime is installed.", "ai-edge-litert")
    if name not in RUNTIMES:
        raise UsageError(f"There is no TensorFlow Lite runtime {name!r}.", f"Known are {', '.join(RUNTIMES)}.")
    runtime = RUNTIMES[name]
    if importlib.util.find_spec(runtime.package) is None:
        raise MissingExtraError(f"The runtime {name} is not installed.", runtime.distribution)
    return runtime


def _version(runtime: Runtime) -> str | None:
    try:
        return importlib.metadata.version(runtime.distribution)
    except importlib.metadata.PackageNotFoundError:
        # tensorflow-cpu, tf-nightly and builds from source go by other names.
        version = getattr(importlib.import_module(runtime.package), "__version__", None)
        return None if version is None else str(version)
