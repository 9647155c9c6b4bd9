# ruff: noqa: N802 -- pynvml's names
"""NVML in front of simulated GPUs: the names of pynvml that the driver uses, spoken over a link to simulator.py.

The driver's own code runs unchanged, and a link can stall, spoil bytes and be unplugged. Nothing here is NVIDIA's code:
names and layouts are those that any caller of the library has to use.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from joulemeter.errors import JouleMeterError, NotFoundError
from joulemeter.transport import Link

from . import wire

ANSWER_S = 0.5
# Of a device that may still be starting, or is another one.
FIRST_ANSWER_S = 2.0
SILENCE_S = 0.1
PENDING_BYTES = 1 << 16


class NVMLError(Exception):
    """`value` is NVML's return code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return f"return code {self.value}"


class c_nvmlValue_t(ctypes.Union):  # noqa: N801 -- pynvml's name
    _fields_: ClassVar = [
        ("dVal", ctypes.c_double),
        ("uiVal", ctypes.c_uint),
        ("ulVal", ctypes.c_ulong),
        ("ullVal", ctypes.c_ulonglong),
        ("sllVal", ctypes.c_longlong),
        ("siVal", ctypes.c_int),
        ("usVal", ctypes.c_ushort),
    ]


class c_nvmlFieldValue_t(ctypes.Structure):  # noqa: N801 -- pynvml's name
    _fields_: ClassVar = [
        ("fieldId", ctypes.c_uint32),
        ("scopeId", ctypes.c_uint32),
        ("timestamp", ctypes.c_int64),
        ("latencyUsec", ctypes.c_int64),
        ("valueType", ctypes.c_uint),
        ("nvmlReturn", ctypes.c_uint),
        ("value", c_nvmlValue_t),
    ]


@dataclass(frozen=True, slots=True)
class Pci:
    busId: str  # noqa: N815 -- pynvml's name


class Fake:
    """A handle is the GPU's index. Raises NVMLError, and IncompleteError when the link is unplugged."""

    NVMLError: type[Exception] = NVMLError

    def __init__(self, link: Link) -> None:
        self._link = link
        self._number = 0
        self._pending = b""
        self._answer_s = FIRST_ANSWER_S

    def _call(self, name: str, *arguments: Any) -> Any:
        self._number += 1
        self._link.write(wire.call(self._number, name, arguments))
        deadline = time.monotonic() + self._answer_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._pending = (self._pending + self._link.read(min(left_s, SILENCE_S)))[-PENDING_BYTES:]
            *lines, self._pending = self._pending.split(b"\n")
            for fields in filter(None, map(wire.answer, lines)):
                if fields.get("n") != self._number:
                    continue
                if fields["return"] != wire.SUCCESS:
                    raise NVMLError(fields["return"])
                return fields["value"]
        raise NVMLError(wire.TIMEOUT)

    def nvmlInit(self) -> None:
        """Raises NotFoundError where no simulated GPU is at the link."""
        try:
            self._call("nvmlInit")
        except NVMLError as error:
            if error.value != wire.TIMEOUT:
                raise
            raise NotFoundError(
                f"What is at {self._link.address} does not answer as JouleMeter's simulated GPUs do.",
                "Give an index, a UUID or a PCI bus id for a GPU of this host.",
            ) from error
        self._answer_s = ANSWER_S

    def nvmlShutdown(self) -> None:
        with contextlib.suppress(JouleMeterError, OSError):
            self._link.close()

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self._call("nvmlSystemGetDriverVersion"))

    def nvmlDeviceGetCount(self) -> int:
        return int(self._call("nvmlDeviceGetCount"))

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> int:
        return int(self._call("nvmlDeviceGetHandleByIndex", index))

    def nvmlDeviceGetName(self, handle: int, /) -> str:
        return str(self._call("nvmlDeviceGetName", handle))

    def nvmlDeviceGetUUID(self, handle: int, /) -> str:
        return str(self._call("nvmlDeviceGetUUID", handle))

    def nvmlDeviceGetPciInfo(self, handle: int, /) -> Pci:
        return Pci(str(self._call("nvmlDeviceGetPciInfo", handle)))

    def nvmlDeviceGetCudaComputeCapability(self, handle: int, /) -> tuple[int, ...]:
        return tuple(self._call("nvmlDeviceGetCudaComputeCapability", handle))

    def nvmlDeviceGetMigMode(self, handle: int, /) -> list[int]:
        return list(self._call("nvmlDeviceGetMigMode", handle))

    def nvmlDeviceGetVirtualizationMode(self, handle: int, /) -> int:
        return int(self._call("nvmlDeviceGetVirtualizationMode", handle))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int, /) -> int:
        return int(self._call("nvmlDeviceGetTotalEnergyConsumption", handle))

    def nvmlDeviceGetPowerUsage(self, handle: int, /) -> int:
        return int(self._call("nvmlDeviceGetPowerUsage", handle))

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int, /) -> int:
        return int(self._call("nvmlDeviceGetTemperature", handle, sensor))

    def nvmlDeviceGetFieldValues(
        self, handle: int, fields: Sequence[tuple[int, int]], /
    ) -> Sequence[c_nvmlFieldValue_t]:
        rows = self._call("nvmlDeviceGetFieldValues", handle, [list(field) for field in fields])
        values = (c_nvmlFieldValue_t * len(fields))()
        for value, (field, scope), (code, kind, number, timestamp_us) in zip(values, fields, rows, strict=True):
            value.fieldId, value.scopeId = field, scope
            value.nvmlReturn, value.valueType, value.timestamp = code, kind, timestamp_us
            setattr(value.value, wire.MEMBERS[kind], number)
        return list(values)
