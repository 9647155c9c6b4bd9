"""Models on this host by OpenVINO and the device asked for.

A device is one that stands for itself: AUTO and MULTI may change the one that runs while it is measured. Inputs and
outputs lie in the host's memory, so the copies to and from a device that has its own are part of the inference.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, NotFoundError, UsageError
from joulemeter.workload import model
from joulemeter.workload.inputs import Set, TensorSpec
from joulemeter.workload.model import Common, Model, Reading, Session, brief

# https://docs.openvino.ai/2023.3/openvino_docs_OV_UG_supported_plugins_Supported_Devices.html: cancelled with 2023.0.
# That release's download page marks 2022.3.1 as the one with it. Its PyPI packages (2022.3.0 to 2022.3.2) are for
# Python up to 3.10 and have the plugins of CPU and GPU only.
GONE = {
    name: f"OpenVINO 2022.3 was the last with {what}: take its archive 2022.3.1 from Intel (the packages on PyPI "
    "have no plugin for it), run the model there with benchmark_app, and measure that as the workload command."
    for name, what in (("MYRIAD", "the Neural Compute Stick 2"), ("HDDL", "the Movidius accelerator cards"))
}
PRECISIONS = ("f32", "f16", "bf16")


def create(target: str, options: Mapping[str, str]) -> OpenVino:
    """The model file `target` with the options of OpenVino and those of every model. Raises UsageError."""
    return model.create(OpenVino, target, options)


class OpenVino(Model):
    """An .xml file with its .bin, an .onnx or a .tflite one. `batch` reshapes the first dimension of every input.

    `precision` is what floats are computed in; None is what the device does best, which may be less than float32.
    `threads` are for the device CPU.
    """

    kind = "openvino"
    what = "a model"
    options: ClassVar[Mapping[str, Reading]] = {
        "device": model.words,
        "precision": partial(model.choice, {name: name for name in PRECISIONS}),
    }

    def __init__(
        self, path: Path, *, device: str = "CPU", precision: str | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(path, **common)
        self._device = device.upper()
        self.precision = precision

    def _open(self, content: bytes) -> Session:
        if importlib.util.find_spec("openvino") is None:
            raise MissingExtraError("OpenVINO is not installed.", "joulemeter[openvino]")
        import openvino

        with _same_signal_stack():
            core = openvino.Core()
            return OpenVinoSession(self, core, choose_device(self._device, core.available_devices))

    def unloadable(self, why: object) -> UsageError:
        return self._unloadable("openvino", why)


class _SignalStack(ctypes.Structure):
    """stack_t of signal.h, as Linux has it."""

    _fields_ = (("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _same_signal_stack() -> Iterator[None]:
    """Have signals handled where they were before.

    The CPU plug-in of OpenVINO 2026 gives the thread a signal stack of its own. Where several models are closed in the
    order in which they were opened, it stays in place after its memory was freed, and Ctrl-C crashes the process.
    """
    if sys.platform != "linux":
        yield
        return
    library = ctypes.CDLL(None)
    before = _SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


def choose_device(name: str, available: Sequence[str]) -> str:
    """The name as OpenVINO has it. Raises UsageError for a device that no OpenVINO has now, NotFoundError for none."""
    if name in available or any(device.startswith(f"{name}.") for device in available):
        return name
    base = name.partition(".")[0]
    if base in GONE:
        raise UsageError(f"This OpenVINO has no device {name}.", GONE[base])
    raise NotFoundError(f"OpenVINO finds no device {name}.", f"Here there are {', '.join(available) or 'none'}.")


class OpenVinoSession(Session):
    """Raises UsageError."""

    def __init__(self, asked: OpenVino, core: Any, device: str) -> None:
        import openvino

        self._version: str = openvino.get_version()
        self._weights_sha256 = _weights(asked.path)
        self._device_name = str(core.get_property(device, "FULL_DEVICE_NAME"))
        try:
            network = core.read_model(str(asked.path))
        except RuntimeError as error:
            raise asked.unloadable(_reason(error)) from error
        sizes = {port.any_name: _size(asked, port) for port in network.inputs}
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = asked.threads
        if asked.precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = asked.precision
        try:
            network.reshape(sizes)
            compiled = core.compile_model(network, device, settings)
        except RuntimeError as error:
            raise UsageError(
                f"{asked.path} cannot be compiled for {device}{_in(asked)}: {_reason(error)}.",
                "Leave the batch or the precision out, or convert the model anew.",
            ) from error
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self.inputs = [_spec(asked, port, sizes[port.any_name]) for port in network.inputs]
        self._in = [self._request.get_tensor(port).data for port in compiled.inputs]
        # Outputs stay where they are: a copy of them would be made inside the window.
        self.invoke = partial(self._request.infer, share_outputs=True)

    def fill(self, values: Set) -> None:
        for memory, value in zip(self._in, values, strict=True):
            memory[...] = value

    def outputs(self) -> list[NDArray[Any]]:
        return [self._request.get_tensor(port).data.copy() for port in self._compiled.outputs]

    def describe(self) -> dict[str, Any]:
        precision = self._property("INFERENCE_PRECISION_HINT")
        return {
            "runtime": "openvino",
            "version": self._version,
            "delegate": "+".join(self._property("EXECUTION_DEVICES")),
            "device_name": self._device_name,
            "threads": self._property("INFERENCE_NUM_THREADS"),
            "precision": None if precision is None else precision.get_type_name(),
            **({} if self._weights_sha256 is None else {"weights_sha256": self._weights_sha256}),
        }

    def _property(self, name: str) -> Any:
        """None where the device has no such property."""
        return (
            self._compiled.get_property(name) if name in self._compiled.get_property("SUPPORTED_PROPERTIES") else None
        )


def _weights(path: Path) -> str | None:
    """The hash of the weights, where they are in a file beside the model's."""
    weights = path.with_suffix(".bin")
    if path.suffix != ".xml" or not weights.is_file():
        return None
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _in(asked: OpenVino) -> str:
    batch = "" if asked.batch is None else f" with a batch of {asked.batch}"
    return batch + ("" if asked.precision is None else f" in {asked.precision}")


def _reason(error: Exception) -> str:
    """Without the lines that say where in OpenVINO's own source it was raised."""
    lines = str(error).splitlines()
    return brief(" ".join(line for line in lines if not line.startswith("Exception from ")))


def _size(asked: OpenVino, port: Any) -> tuple[int, ...]:
    name, shape = port.any_name, port.partial_shape
    if shape.rank.is_dynamic:
        raise UsageError(f"The input {name!r} of {asked.path} has no fixed number of dimensions.")
    sizes = ["?" if size.is_dynamic else size.get_length() for size in shape]
    return model.sized(asked.path, name, sizes, asked.batch, resizes=True)


def _spec(asked: OpenVino, port: Any, shape: tuple[int, ...]) -> TensorSpec:
    try:
        dtype = np.dtype(port.element_type.to_dtype())
    except RuntimeError as error:
        kind = port.element_type.get_type_name()
        raise UsageError(f"The input {port.any_name!r} of {asked.path} holds {kind}, which numpy has not.") from error
    return TensorSpec(name=port.any_name, shape=shape, dtype=dtype)
