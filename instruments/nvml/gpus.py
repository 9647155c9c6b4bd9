"""Which GPUs there are, what each can tell, which one the user meant, and what is known of its generation's sensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joulemeter.errors import NotFoundError, UsageError

from . import library, wire

ALL = "all"

_PCI = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """From compute capability `since` on. `seen` is the share of each refresh of which a power is the mean.

    None: nobody has measured it.
    """

    since: tuple[int, int]
    name: str
    seen: float | None


# Yang, Adamek, Armour, "Part-time power measurements: nvidia-smi's lack of attention", SC24, arXiv 2312.02741.
GENERATIONS = (
    Generation(since=(0, 0), name="before Kepler", seen=None),
    Generation(since=(3, 0), name="Kepler", seen=None),
    Generation(since=(5, 0), name="Maxwell", seen=None),
    Generation(since=(6, 0), name="Pascal", seen=0.5),
    Generation(since=(7, 0), name="Volta", seen=0.5),
    Generation(since=(7, 5), name="Turing", seen=1.0),
    Generation(since=(8, 0), name="Ampere GA100", seen=0.25),
    Generation(since=(8, 6), name="Ampere GA10x", seen=1.0),
    Generation(since=(8, 9), name="Ada", seen=1.0),
    Generation(since=(9, 0), name="Hopper", seen=0.25),
    Generation(since=(10, 0), name="Blackwell or later", seen=None),
)
# nvml.h on nvmlDeviceGetPowerUsage: a mean of one second on Ampere except GA100, and on what came later.
LAST_INSTANT_USAGE = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`instant`, `average` and `counter` are what NVML answered when first asked, `usage` that of the older call."""

    handle: library.Handle
    index: int
    uuid: str
    pci: str
    name: str
    capability: tuple[int, int]
    mig: bool
    virtual: bool
    counter: wire.Answer
    instant: wire.Answer
    average: wire.Answer
    usage: wire.Answer

    @property
    def generation(self) -> Generation:
        return [one for one in GENERATIONS if one.since <= self.capability][-1]

    @property
    def averages_usage(self) -> bool:
        return self.capability > LAST_INSTANT_USAGE

    @property
    def description(self) -> str:
        return f"{self.name} ({self.index}, {self.pci})"

    def source(self, asked: str) -> str | None:
        """What to report: as asked, or the best there is; None where it has none of that."""
        there = [name for name in SOURCES if self._has(name)]
        return next((name for name in there if asked in (name, AUTO)), None)

    def _has(self, source: str) -> bool:
        if getattr(self, SOURCES[source]).code == wire.SUCCESS:
            return True
        return self.usage.code == wire.SUCCESS and source == ("average" if self.averages_usage else "instant")


AUTO = "auto"
# What may be reported, the best first, and in which answer it stands.
SOURCES = {"energy": "counter", "instant": "instant", "average": "average"}


def tried(nvml: library.Nvml, ask: Callable[[], int]) -> wire.Answer:
    """A value, or the return code in its place."""
    try:
        return wire.Answer(value=ask(), code=wire.SUCCESS)
    except nvml.NVMLError as error:
        return wire.Answer(code=library.code(error))


def powers(nvml: library.Nvml, handle: library.Handle) -> tuple[wire.Answer, wire.Answer]:
    """Instantaneous and average power of the GPU itself, milliwatts."""
    asked = [(wire.POWER_INSTANT, wire.SCOPE_GPU), (wire.POWER_AVERAGE, wire.SCOPE_GPU)]
    try:
        instant, average = nvml.nvmlDeviceGetFieldValues(handle, asked)
    except nvml.NVMLError as error:
        failed = wire.Answer(code=library.code(error))
        return failed, failed
    return _field(instant), _field(average)


def _field(field: library.FieldValue) -> wire.Answer:
    """Which type a driver gives a field differs."""
    code, kind = int(field.nvmlReturn), int(field.valueType)
    if code != wire.SUCCESS or kind >= len(wire.MEMBERS):
        return wire.Answer(code=code or wire.UNKNOWN)
    value = round(getattr(field.value, wire.MEMBERS[kind]))
    return wire.Answer(value=value, code=code, timestamp_us=int(field.timestamp))


def every(nvml: library.Nvml) -> list[Gpu]:
    """The GPUs that can be talked to; one that is lost or forbidden spoils no other. Raises NVMLError if all are."""
    there, failures = [], []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            there.append(_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index))
        except nvml.NVMLError as error:
            failures.append(error)
    if failures and not there:
        raise failures[0]
    return there


def _gpu(nvml: library.Nvml, handle: library.Handle, index: int) -> Gpu:
    instant, average = powers(nvml, handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    usage = wire.Answer()
    if wire.SUCCESS not in (instant.code, average.code):
        usage = tried(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return Gpu(
        handle=handle,
        index=index,
        uuid=library.text(nvml.nvmlDeviceGetUUID(handle)),
        pci=library.text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        name=library.text(nvml.nvmlDeviceGetName(handle)),
        capability=(int(major), int(minor)),
        mig=tried(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0]).value == wire.MIG_ENABLED,
        virtual=tried(nvml, lambda: nvml.nvmlDeviceGetVirtualizationMode(handle)).value == wire.VIRTUAL_GPU,
        counter=tried(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
        instant=instant,
        average=average,
        usage=usage,
    )


def choose(asked: str, there: Sequence[Gpu]) -> list[Gpu]:
    """By index, UUID or PCI bus id; the only one for "", each for ALL. Raises NotFoundError, UsageError."""
    if not there:
        raise NotFoundError("NVIDIA's driver knows no GPU.", "Check what `nvidia-smi` lists.")
    listed = "; ".join(f"{gpu.index} or {gpu.uuid} ({gpu.name}, {gpu.pci})" for gpu in there)
    if asked == ALL:
        return list(there)
    if not asked and len(there) == 1:
        return list(there)
    if not asked:
        raise UsageError(f"There are {len(there)} GPUs.", f"Name one, or {ALL} for their sum: {listed}.")
    if asked.upper().startswith("MIG-"):
        raise UsageError(
            "NVML knows no energy of a MIG instance, only of the whole GPU.",
            f"Measure the GPU, with nothing else on it: {listed}.",
        )
    for gpu in there:
        if asked == str(gpu.index) or asked.lower() == gpu.uuid.lower() or _same_slot(asked, gpu.pci):
            return [gpu]
    raise NotFoundError(f"There is no GPU {asked}.", f"There is: {listed}.")


def _same_slot(asked: str, pci: str) -> bool:
    """Domains may be left out or have four digits."""
    wanted, there = _PCI.fullmatch(asked), _PCI.fullmatch(pci)
    if wanted is None or there is None:
        return False
    return _numbers(wanted) == _numbers(there)


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(part or "0", 16) for part in match.groups()]


def refuse(gpu: Gpu, asked: str = AUTO) -> None:
    """Raises UsageError for a GPU that does not tell what is asked for, NotFoundError for one that tells nothing."""
    if gpu.source(asked) is not None:
        return
    if gpu.source(AUTO) is not None:
        others = ", ".join(name for name in SOURCES if gpu.source(name))
        raise UsageError(f"{gpu.description} does not tell source={asked}.", f"Give --set source=auto, or: {others}.")
    if gpu.virtual:
        raise NotFoundError(
            f"{gpu.description} is a virtual GPU, of which NVML tells neither energy nor power.",
            "Measure on the host of the virtual machine, or pass the whole GPU through to it.",
        )
    raise NotFoundError(
        f"NVML tells neither energy nor power of {gpu.description}.",
        "On a Jetson use its own sensors: --meter hwmon. Other boards without a sensor need a meter outside.",
    )
