"""ONNX models on this host, by ONNX Runtime and the execution provider asked for.

Inputs and outputs are bound to the provider's memory, so that `invoke` is the inference alone: `run` would copy the
inputs to a GPU and the outputs back inside the window, and would make new arrays for them each time.
https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html

A provider that ONNX Runtime leaves out, or that gets no node of the model, is an error: the processor would run it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import model
from joulemeter.workload.inputs import Set, TensorSpec
from joulemeter.workload.model import Common, Model, Reading, Session, brief

SUFFIX = "ExecutionProvider"
CPU = "CPUExecutionProvider"

# What each is followed by: TensorRT leaves to CUDA what it does not have.
# https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
SECOND = {"TensorrtExecutionProvider": ["CUDAExecutionProvider"]}

# Whose tensors can be made in a memory of their own. Where another has one, it copies its outputs to the host's as
# part of the inference.
MEMORY = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
}

# https://onnxruntime.ai/docs/execution-providers
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "QNNExecutionProvider": "onnxruntime-qnn",
}

_LOST = "Check that this provider's own libraries are installed and that it has the model's operators."

TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for sign in ("int", "uint") for name in (f"{sign}{n}" for n in (8, 16, 32, 64))},
}


def create(target: str, options: Mapping[str, str]) -> Onnx:
    """The model file `target` with the options of Onnx and those of every model. Raises UsageError."""
    return model.create(Onnx, target, options)


class Onnx(Model):
    """An .onnx file. `provider` goes with or without "ExecutionProvider", in any case.

    `threads` are those within an operator; operators run one after another.
    """

    kind = "onnx"
    what = "an ONNX model"
    options: ClassVar[Mapping[str, Reading]] = {"provider": model.words}

    def __init__(self, path: Path, *, provider: str = "cpu", **common: Unpack[Common]) -> None:
        super().__init__(path, **common)
        self._asked = provider

    def _open(self, content: bytes) -> Session:
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingExtraError("ONNX Runtime is not installed.", "joulemeter[onnx]")
        return OnnxSession(self, choose_provider(self._asked))

    def unloadable(self, why: object) -> UsageError:
        return self._unloadable("onnxruntime", why)


def choose_provider(name: str) -> str:
    """Its full name. Raises UsageError that lists those of this build of ONNX Runtime."""
    import onnxruntime

    available: list[str] = onnxruntime.get_available_providers()
    wanted = name.lower().removesuffix(SUFFIX.lower())
    by_name = {provider.removesuffix(SUFFIX).lower(): provider for provider in available}
    if wanted in by_name:
        return by_name[wanted]
    package = next((p for provider, p in PACKAGES.items() if provider.removesuffix(SUFFIX).lower() == wanted), None)
    known = f"Here there are {', '.join(by_name)}."
    raise UsageError(
        f"This ONNX Runtime has no execution provider {name!r}.",
        known if package is None else f"{known} It comes with the package {package} in the place of onnxruntime.",
    )


class OnnxSession(Session):
    """Raises UsageError."""

    def __init__(self, asked: Onnx, provider: str) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        raised = {cls for cls in vars(state).values() if isinstance(cls, type) and issubclass(cls, Exception)}
        self.failures = (*raised, ValueError, RuntimeError)
        self._version: str = onnxruntime.__version__
        self._threads = asked.threads
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = asked.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = [provider, *SECOND.get(provider, []), CPU]
        try:
            with warnings.catch_warnings():
                # It only warns of a provider that it leaves out; that one is missed below.
                warnings.simplefilter("ignore")
                # By path, since weights may lie in files beside the model.
                session = onnxruntime.InferenceSession(
                    str(asked.path), settings, providers=list(dict.fromkeys(providers)), enable_fallback=0
                )
        except self.failures as error:
            if provider == CPU:
                raise asked.unloadable(error) from error
            raise UsageError(f"{asked.path} cannot be loaded for {provider}: {brief(error)}.", _LOST) from error
        self._nodes = _nodes(session)
        self._providers: list[str] = [name for name in session.get_providers() if not self._nodes or self._nodes[name]]
        if provider not in self._providers:
            used = " and ".join(self._providers)
            raise UsageError(
                f"{asked.path} does not run on {provider}: ONNX Runtime gave it to {used}.",
                _LOST,
            )
        self.inputs = [_spec(asked, argument) for argument in session.get_inputs()]
        memory = MEMORY.get(provider, "cpu")
        self._binding = session.io_binding()
        self._values = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(spec.shape, spec.dtype), memory, 0)
            for spec in self.inputs
        ]
        for argument in session.get_outputs():
            self._binding.bind_output(argument.name, memory)
        self.invoke = partial(session.run_with_iobinding, self._binding)

    def fill(self, values: Set) -> None:
        for spec, held, value in zip(self.inputs, self._values, values, strict=True):
            held.update_inplace(value)
            # What its consumer wants elsewhere is copied there by binding it, and not again by running.
            self._binding.bind_ortvalue_input(spec.name, held)

    def outputs(self) -> list[NDArray[Any]]:
        copies: list[NDArray[Any]] = self._binding.copy_outputs_to_cpu()
        return copies

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "onnxruntime",
            "version": self._version,
            "delegate": "+".join(self._providers),
            "threads": self._threads,
            "nodes": None if self._nodes is None else dict(self._nodes),
        }


def _nodes(session: Any) -> Counter[str] | None:
    """How many nodes each provider runs; None where this version does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return nodes


def _spec(asked: Onnx, argument: Any) -> TensorSpec:
    if argument.type not in TYPES:
        raise UsageError(
            f"The input {argument.name!r} of {asked.path} is a {brief(argument.type)}, not a plain tensor."
        )
    return TensorSpec(
        name=argument.name,
        shape=model.sized(asked.path, argument.name, argument.shape, asked.batch),
        dtype=np.dtype(TYPES[argument.type]),
    )
