"""Ask NVML for whole readings on a grid of the host's clock, after having looked how often it has something new."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from joulemeter import units
from joulemeter.capture import Epoch, Header
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.polled import Poller
from joulemeter.transport.connect import connect

from . import channels, gpus, library, refresh, wire
from .fake import Fake

# Readings in a refresh: a move is then seen a quarter of it late at most.
PER_REFRESH = 4
SLOWEST_USUAL_S = 0.25
FASTEST_S = 5e-3

# Of these the counter is of more than the GPU (ml-energy/zeus pull request 172).
MODULES = ("GH200",)
# Of these the CPU beside the GPU is not told (ml-energy/zeus pull request 242).
WITHOUT_CPU = ("GB10",)

_NETWORK = re.compile(r"(tcp://)?[^/]+:\d+")


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.nvml.open`."""
    check(options)
    if is_link(address):
        link = connect(address)
        try:
            return Driver(Fake(link), options, settings, link.address)
        except BaseException:
            link.close()
            raise
    return Driver(library.load(), options, {**settings, **({"gpu": address} if address else {})})


def is_link(address: str) -> bool:
    """Whether simulated GPUs are meant: a port or HOST:PORT, not an index, a UUID or a PCI bus id."""
    return "/" in address or bool(_NETWORK.fullmatch(address)) or address.upper().startswith("COM")


def check(options: Options) -> None:
    """Raises UsageError for what a GPU's own sensor cannot do."""
    if options.supply_v is not None:
        raise UsageError("A GPU cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("A GPU tells its power, not a current.", "Leave --assume-voltage out.")


class _Grid(Poller):
    """A Poller whose grid can begin anew once it is known how often there is something new."""

    def again(self, usual_s: float) -> Epoch:
        """`usual_s` is the interval where the user gave none, or longer where answers need it."""
        if self._free:
            self.interval_s = max(self.interval_s, usual_s)
        return self.begin()


class Driver(LinkDriver):
    def __init__(
        self, nvml: library.Nvml, options: Options, settings: Mapping[str, str], address: str | None = None
    ) -> None:
        """`address` is where simulated GPUs are, None for this host's.

        Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError.
        """
        check(options)
        self._nvml = nvml
        self._running = False
        self._address = address
        try:
            nvml.nvmlInit()
            self._running = True
            self._version = library.text(nvml.nvmlSystemGetDriverVersion())
            self.gpus = gpus.choose(settings["gpu"], gpus.every(nvml))
            self.source = self._source(settings["source"])
            self._others = [
                name for name in gpus.SOURCES if name != self.source and all(gpu.source(name) for gpu in self.gpus)
            ]
            width = wire.READING_BYTES * len(self.gpus)
            self._grid = _Grid(self._ask, width, settings["interval"], FASTEST_S, self._name())
        except nvml.NVMLError as error:
            self.close()
            raise library.explain(error) from error
        except BaseException:
            self.close()
            raise

    def _source(self, asked: str) -> str:
        """The best that all of them have."""
        for gpu in self.gpus:
            gpus.refuse(gpu, asked)
        for name in gpus.SOURCES:
            if asked in (name, gpus.AUTO) and all(gpu.source(name) for gpu in self.gpus):
                return name
        raise UsageError("These GPUs have no quantity in common.", "Measure them one by one.")

    def _name(self) -> str:
        return "the GPU" if len(self.gpus) == 1 else f"the {len(self.gpus)} GPUs"

    def _ask(self) -> bytes:
        """A reading of each GPU; b"" where a simulated one did not answer in time. Raises IncompleteError."""
        readings = []
        for gpu in self.gpus:
            reading = self._read(gpu)
            if reading is None:
                return b""
            readings.append(wire.pack(reading))
        return b"".join(readings)

    def _read(self, gpu: gpus.Gpu) -> wire.Reading | None:
        nvml, handle = self._nvml, gpu.handle
        energy = instant = average = wire.Answer()
        if gpu.counter.code == wire.SUCCESS:
            energy = self._known(gpus.tried(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        if energy.code == wire.TIMEOUT:
            return None
        if gpu.usage.code == wire.SUCCESS:
            usage = self._known(gpus.tried(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)))
            instant, average = (instant, usage) if gpu.averages_usage else (usage, average)
        else:
            instant, average = map(self._known, gpus.powers(nvml, handle))
        if wire.TIMEOUT in (instant.code, average.code):
            return None
        temperature = gpus.tried(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, wire.TEMPERATURE_GPU))
        return wire.Reading(energy=energy, instant=instant, average=average, temperature=temperature)

    def _known(self, answer: wire.Answer) -> wire.Answer:
        """Itself, unless it says that nothing will come any more. Raises IncompleteError."""
        if answer.code in library.GONE:
            raise library.gone(answer.code)
        return answer

    def start(self) -> Header:
        """Takes up to two seconds: it looks how often there is something new. Raises as Poller.start does."""
        self._grid.start(wire.values([channels.NAMES[self.source]]))
        found = refresh.watch(self._ask, self.source)
        epoch = self._grid.again(min(found.of(self.source) / PER_REFRESH, SLOWEST_USUAL_S))
        return Header(
            instrument="nvml",
            model=" + ".join(gpu.name for gpu in self.gpus),
            wire=wire.FORMAT,
            rate_hz=self._grid.rate_hz,
            word_bytes=self._grid.word_bytes,
            channels=channels.channels(
                self.source, tuple(self._others), {name: found.of(name) for name in gpus.SOURCES}, len(self.gpus)
            ),
            serial=", ".join(gpu.uuid for gpu in self.gpus),
            firmware=f"driver {self._version}",
            address=self._address or (self.gpus[0].uuid if len(self.gpus) == 1 else gpus.ALL),
            simulated=isinstance(self._nvml, Fake),
            epoch=epoch,
            parameters={
                "age_ns": round(self._age_s(found) * 1e9),
                "source": self.source,
                "refresh": {
                    "found_s": dict(found.refresh_s),
                    "moves": dict(found.moves),
                    "watched_s": found.watched_s,
                    "spacing_s": found.spacing_s,
                    "bound": found.bound(self.source),
                },
                "gpus": [
                    {
                        "index": gpu.index,
                        "name": gpu.name,
                        "uuid": gpu.uuid,
                        "pci": gpu.pci,
                        "capability": list(gpu.capability),
                        "generation": gpu.generation.name,
                        "power_usage_call": gpu.usage.code == wire.SUCCESS,
                    }
                    for gpu in self.gpus
                ],
            },
            caveats=tuple(self._caveats(found)),
        )

    def _age_s(self, found: refresh.Found) -> float:
        """How old, on average, the middle of what a reading shows is.

        Of a counter only readings at which it moved count, which come half an interval after the move. A power stands
        until the next, and is the mean of a time before it.
        """
        if self.source == "energy":
            return self._grid.interval_s / 2
        refresh_s = found.of(self.source)
        seen_s = max(gpu.generation.seen or 1.0 for gpu in self.gpus) * refresh_s
        return (refresh_s + (channels.AVERAGE_S if self.source == "average" else seen_s)) / 2

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the GPU is lost."""
        return self._grid.read(timeout_s)

    def stop(self) -> None:
        """Nothing runs in the GPU for us, and it supplies nothing."""

    def close(self) -> None:
        if not self._running:
            return
        # NVML counts who uses it in this process: only our own use is given back.
        self._running = False
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    # -- doubts -------------------------------------------------------------------------------------------------------

    def _caveats(self, found: refresh.Found) -> Iterator[Caveat]:
        if found.bound(self.source):
            yield doubt(
                Code.FEW_SAMPLES,
                f"Nothing moved while {self._name()} was watched for {units.show(found.watched_s, 's')}, so how often "
                "there is something new is not known, and that time stands for it. Make windows much longer.",
                watched_s=found.watched_s,
            )
        for gpu in self.gpus:
            yield from about(gpu, self.source)


def about(gpu: gpus.Gpu, source: str) -> Iterator[Caveat]:
    """What is to be doubted about this source of this GPU."""
    seen = 1.0 if source == "average" else gpu.generation.seen
    if seen is None:
        yield note(
            Code.PARTLY_SEEN,
            f"Which share of the time the power sensor of {gpu.name} ({gpu.generation.name}) sees is not known. "
            "Compare with an external meter.",
        )
    elif seen < 1:
        counted = " Whether the energy counter sees more is not stated." if source == "energy" else ""
        yield doubt(
            Code.PARTLY_SEEN,
            f"The power sensor of {gpu.name} ({gpu.generation.name}) looks for {seen:.0%} of the time only, so work "
            f"that repeats in step with it is misjudged.{counted} Use windows of several seconds that start at varying "
            "times, or an external meter.",
            seen=seen,
        )
    if gpu.usage.code == wire.SUCCESS and source != "energy":
        meaning = "a mean of the last second" if gpu.averages_usage else "an instantaneous value"
        yield note(
            Code.ACCURACY_UNVERIFIED,
            f"This driver does not tell instantaneous from average power. nvmlDeviceGetPowerUsage is used, by NVIDIA's "
            f"words {meaning} on {gpu.generation.name}; its meaning changed with driver 530. Update the driver if "
            "there is one for this GPU.",
        )
    if gpu.mig:
        yield doubt(
            Code.OTHER_SCOPE,
            f"MIG is on: this is the energy of the whole {gpu.name}, whoever works on it, for NVML knows none of an "
            "instance. Leave the other instances idle, or switch MIG off.",
        )
    if gpu.virtual:
        yield doubt(
            Code.OTHER_SCOPE,
            f"{gpu.name} is a virtual GPU: what it tells may be of the whole board. Measure on the host.",
        )
    if source == "energy" and any(name in gpu.name for name in MODULES):
        yield doubt(
            Code.OTHER_SCOPE,
            f"The energy counter of a {gpu.name} is of the whole module with its CPU and memory, not of the GPU alone. "
            "--set source=instant is of the GPU.",
        )
    if any(name in gpu.name for name in WITHOUT_CPU):
        yield note(
            Code.OTHER_SCOPE,
            f"{gpu.name} tells the power of its GPU only; the CPU and memory beside it come on top.",
        )
