# ruff: noqa: N802 -- pynvml's names
"""NVML as this driver uses it: the names of nvidia-ml-py's module `pynvml`, and what its errors mean to a person."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

from joulemeter.errors import (
    KEPT,
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
)

from . import wire

EXTRA = "joulemeter[nvidia]"

# The library's own types are pointers, which nobody looks into.
Handle = Any


class FieldValue(Protocol):
    """nvmlFieldValue_t."""

    timestamp: int
    valueType: int  # noqa: N815 -- NVIDIA's name
    nvmlReturn: int  # noqa: N815
    value: Any


class PciInfo(Protocol):
    """nvmlPciInfo_t."""

    @property
    def busId(self) -> bytes | str: ...


class Nvml(Protocol):
    """The functions that are called; pynvml is one such object, and fake.Fake another. All raise NVMLError."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> object: ...
    def nvmlShutdown(self) -> object: ...
    def nvmlSystemGetDriverVersion(self) -> bytes | str: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Handle: ...
    def nvmlDeviceGetName(self, handle: Handle, /) -> bytes | str: ...
    def nvmlDeviceGetUUID(self, handle: Handle, /) -> bytes | str: ...
    def nvmlDeviceGetPciInfo(self, handle: Handle, /) -> PciInfo: ...
    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle, /) -> Sequence[int]: ...
    def nvmlDeviceGetMigMode(self, handle: Handle, /) -> Sequence[int]: ...
    def nvmlDeviceGetVirtualizationMode(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetFieldValues(
        self, handle: Handle, fields: Sequence[tuple[int, int]], /
    ) -> Sequence[FieldValue]: ...
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int, /) -> int: ...


def load() -> Nvml:
    """nvidia-ml-py. Raises MissingExtraError."""
    try:
        return cast(Nvml, importlib.import_module("pynvml"))
    except ImportError as error:
        raise MissingExtraError("NVIDIA GPUs are read through the package nvidia-ml-py.", EXTRA) from error


def code(error: Exception) -> int:
    return int(getattr(error, "value", wire.UNKNOWN))


def text(value: bytes | str) -> str:
    """Older versions of the package give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


_NO_DRIVER = (
    NotFoundError,
    "There is no NVIDIA driver on this host",
    "Install NVIDIA's driver; `nvidia-smi` has to list the GPU. In a container, start it with its GPUs (--gpus all).",
)
_LOST = (IncompleteError, "The GPU does not answer any more", f"{KEPT} Look into the kernel's log for Xid, and reboot.")

# What NVML's return codes mean: class, what happened, what to do.
_MEANING: dict[int, tuple[type[JouleMeterError], str, str]] = {
    wire.LIBRARY_NOT_FOUND: _NO_DRIVER,
    wire.DRIVER_NOT_LOADED: _NO_DRIVER,
    wire.LIB_RM_VERSION_MISMATCH: (
        AccessError,
        "NVIDIA's library and kernel module are of different versions",
        "The driver was updated while it ran: reboot, or unload and load the nvidia modules.",
    ),
    wire.NO_PERMISSION: (
        AccessError,
        "No permission to talk to the NVIDIA driver",
        "Your user needs read and write access to /dev/nvidiactl and /dev/nvidia*; often the group is video.",
    ),
    wire.GPU_IS_LOST: _LOST,
    wire.RESET_REQUIRED: _LOST,
}
# After these nothing more comes from the GPU.
GONE = (wire.GPU_IS_LOST, wire.RESET_REQUIRED)
# Where these are all there is, there is nothing wrong and nothing there.
ABSENT = (wire.LIBRARY_NOT_FOUND, wire.DRIVER_NOT_LOADED)


def explain(error: Exception) -> JouleMeterError:
    """An error of NVML as ours."""
    return _told(code(error), str(error))


def gone(code: int) -> JouleMeterError:
    """A GPU that was lost while it was measured."""
    return _told(code, f"return code {code}")


def _told(code: int, said: str) -> JouleMeterError:
    kind, what, remedy = _MEANING.get(
        code, (DataError, "NVML does not answer as it should", "Check what `nvidia-smi` says.")
    )
    return kind(f"{what} (NVML: {said}).", remedy)
