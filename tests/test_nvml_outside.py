"""The driver and its simulated library held against NVIDIA's own package, nvidia-ml-py.

The package needs libnvidia-ml, which comes with a GPU's driver. Where the package has to run, the functions of that
library stand here in its place, called as C: through pointers and by the names that they have in nvml.h.
"""

from __future__ import annotations

import ctypes
import inspect
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.errors import IncompleteError, NotFoundError
from joulemeter.instrument import Options
from joulemeter.instruments import nvml
from joulemeter.instruments.nvml import discovery, fake, library, wire

pynvml: Any = pytest.importorskip("pynvml", reason="needs nvidia-ml-py: pip install 'joulemeter[nvidia]'")
pytestmark = pytest.mark.outside

no_driver = pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this host has a driver of NVIDIA's")
UUID = "GPU-b1028956-cfa2-0990-bf4a-5da9abb51763"

CALLED = [name for name in vars(library.Nvml) if name.startswith("nvml")]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SUCCESS", "NVML_SUCCESS"),
        ("NOT_SUPPORTED", "NVML_ERROR_NOT_SUPPORTED"),
        ("NO_PERMISSION", "NVML_ERROR_NO_PERMISSION"),
        ("DRIVER_NOT_LOADED", "NVML_ERROR_DRIVER_NOT_LOADED"),
        ("TIMEOUT", "NVML_ERROR_TIMEOUT"),
        ("LIBRARY_NOT_FOUND", "NVML_ERROR_LIBRARY_NOT_FOUND"),
        ("FUNCTION_NOT_FOUND", "NVML_ERROR_FUNCTION_NOT_FOUND"),
        ("GPU_IS_LOST", "NVML_ERROR_GPU_IS_LOST"),
        ("RESET_REQUIRED", "NVML_ERROR_RESET_REQUIRED"),
        ("LIB_RM_VERSION_MISMATCH", "NVML_ERROR_LIB_RM_VERSION_MISMATCH"),
        ("UNKNOWN", "NVML_ERROR_UNKNOWN"),
        ("POWER_AVERAGE", "NVML_FI_DEV_POWER_AVERAGE"),
        ("POWER_INSTANT", "NVML_FI_DEV_POWER_INSTANT"),
        ("SCOPE_GPU", "NVML_POWER_SCOPE_GPU"),
        ("TEMPERATURE_GPU", "NVML_TEMPERATURE_GPU"),
        ("VIRTUAL_GPU", "NVML_GPU_VIRTUALIZATION_MODE_VGPU"),
        ("MIG_ENABLED", "NVML_DEVICE_MIG_ENABLE"),
    ],
)
def test_constants_are_nvidias(ours: str, theirs: str) -> None:
    assert getattr(wire, ours) == getattr(pynvml, theirs)


@pytest.mark.parametrize("name", CALLED)
def test_the_functions_that_are_called_exist_and_take_as_much(name: str) -> None:
    theirs = inspect.signature(inspect.unwrap(getattr(pynvml, name))).parameters
    ours = inspect.signature(getattr(fake.Fake, name)).parameters
    assert len(theirs) == len(ours) - 1, "self apart"


@pytest.mark.parametrize("name", ["c_nvmlValue_t", "c_nvmlFieldValue_t"])
def test_structures_have_nvidias_layout(name: str) -> None:
    ours, theirs = getattr(fake, name), getattr(pynvml, name)
    assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    assert [field[0] for field in ours._fields_] == [field[0] for field in theirs._fields_]
    for field, _ in ours._fields_:
        one, other = getattr(ours, field), getattr(theirs, field)
        assert (one.offset, one.size) == (other.offset, other.size), field


def test_types_of_values_stand_in_the_order_of_their_members() -> None:
    kinds = [
        "DOUBLE",
        "UNSIGNED_INT",
        "UNSIGNED_LONG",
        "UNSIGNED_LONG_LONG",
        "SIGNED_LONG_LONG",
        "SIGNED_INT",
        "UNSIGNED_SHORT",
    ]
    for kind, member in zip(kinds, wire.MEMBERS, strict=True):
        assert wire.MEMBERS.index(member) == getattr(pynvml, f"NVML_VALUE_TYPE_{kind}")
    assert [name for name, _ in pynvml.c_nvmlValue_t._fields_] == list(wire.MEMBERS)


@pytest.mark.parametrize("code", [3, 4, 9, 10, 12, 15, 18, 999])
def test_errors_carry_the_same_code(code: int) -> None:
    theirs = pynvml.NVMLError(code)
    assert library.code(theirs) == library.code(fake.NVMLError(code)) == code
    assert type(library.explain(theirs)) is type(library.explain(fake.NVMLError(code)))
    assert str(theirs) in library.explain(theirs).what


@no_driver
def test_without_a_driver_there_is_nothing_to_find_and_opening_says_so() -> None:
    assert nvml.discover() == []
    with pytest.raises(NotFoundError, match="no NVIDIA driver") as told:
        nvml.open("", Options())
    assert "nvidia-smi" in told.value.remedy


class CLibrary:
    """The C functions of a host with one RTX A4000 at 150 W, its counter moving every 20 ms, and no MIG."""

    def __init__(self) -> None:
        self.uses = 0
        self.lost = False
        self.asked: list[tuple[int, int]] = []
        self.began_s = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def _steps(self) -> int:
        return int((time.monotonic() - self.began_s) / 0.02)

    def nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802
        self.uses += 1
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.uses -= 1
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"550.54.15"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        return 0 if index.value == 0 else 2

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"NVIDIA RTX A4000"
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = UUID.encode()
        return 0

    def nvmlDeviceGetPciInfo_v3(self, handle: Any, pci: Any) -> int:  # noqa: N802
        pci._obj.busId = b"00000000:01:00.0"
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = 8, 6
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetVirtualizationMode(self, handle: Any, mode: Any) -> int:  # noqa: N802
        mode._obj.value = 1
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:  # noqa: N802
        millijoules._obj.value = 2**33 + 3000 * self._steps()
        return 15 if self.lost else 0

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, degrees: Any) -> int:  # noqa: N802
        degrees._obj.value = 61
        return 0

    def nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> int:  # noqa: N802
        for value in values._obj:
            self.asked.append((value.fieldId, value.scopeId))
            value.timestamp = 1_700_000_000_000_000
            value.valueType = 3 if value.fieldId == 186 else 1
            if value.fieldId == 186:
                value.value.ullVal = 150_000
            else:
                value.value.uiVal = 149_500
        return 0


@pytest.fixture
def c(monkeypatch: pytest.MonkeyPatch) -> CLibrary:
    made = CLibrary()
    monkeypatch.setattr(pynvml, "nvmlLib", made)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return made


def test_nvidias_package_finds_what_its_library_has(c: CLibrary) -> None:
    (found,) = nvml.discover()
    assert (found.address, found.serial, found.problem) == (UUID, UUID, None)
    assert found.description == "NVIDIA RTX A4000 (0, 00000000:01:00.0)"
    assert c.uses == 0


@pytest.mark.parametrize("address", ["", "0", UUID, "01:00.0"])
def test_nvidias_package_can_be_measured_through(c: CLibrary, address: str) -> None:
    with nvml.open(address, Options()) as meter:
        header = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(40))
    assert c.uses == 0, "what was begun is ended"
    assert (header.model, header.serial, header.firmware) == ("NVIDIA RTX A4000", UUID, "driver 550.54.15")
    assert not header.simulated and header.address == UUID
    assert {*c.asked} == {(186, 0), (185, 0)}
    blocks = nvml.decoder(header).feed(raw)
    power, average, energy, temperature = (
        np.concatenate([block.data[name] for block in blocks])
        for name in ("power", "average power", "energy", "temperature")
    )
    assert {*power} == {150.0} and {*average} == {149.5} and {*temperature} == {61.0}
    # Above 2^32 mJ, in steps of 3 J, forwards.
    assert energy[0] > 2**32 * 1e-3
    steps = np.diff(energy) / 3.0
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert (steps > -1e-3).all() and steps.max() > 0.5


def test_a_gpu_that_falls_off_the_bus_ends_a_recording_through_nvidias_package(c: CLibrary) -> None:
    with nvml.open("0", Options(settings={"interval": "10ms"})) as meter:
        meter.start()
        c.lost = True
        with pytest.raises(IncompleteError, match="does not answer any more"):
            meter.read(0.5)
    assert c.uses == 0


def test_discovery_leaves_nvml_as_others_in_this_process_use_it(c: CLibrary) -> None:
    pynvml.nvmlInit()
    assert len(discovery.discover("nvml")) == 1
    assert c.uses == 1
    pynvml.nvmlShutdown()
