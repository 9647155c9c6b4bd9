"""Which rails a board measures, read off its sysfs tree, and which of them make the board's power.

A *rail* is one supply line with a current and a voltage, or a power, of its own. Sources: Linux,
Documentation/hwmon/{ina2xx,ina238,ina3221,powerz,sysfs-interface}.rst; NVIDIA's device trees tegra234-p3701*.dtsi and
-p3767.dtsi; rbonghi/jetson_stats (issues 51, 85, 344; pull request 900) for what is the total of a Jetson.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from joulemeter.boardfiles import wire as board
from joulemeter.boardfiles.driver import permit
from joulemeter.boardfiles.wire import Files
from joulemeter.errors import AccessError, NotFoundError, UsageError

from .channels import CHIPS
from .wire import PER_SI

# What is asked of the board, below its sysfs.
PATTERNS = (
    "class/hwmon/hwmon*/name",
    "class/hwmon/hwmon*/label",
    "class/hwmon/hwmon*/device",
    "class/hwmon/hwmon*/*_label",
    "class/hwmon/hwmon*/power*_input",
    "class/hwmon/hwmon*/power*_average",
    "class/hwmon/hwmon*/curr*_input",
    "class/hwmon/hwmon*/in*_input",
    "class/hwmon/hwmon*/in*_enable",
    "class/hwmon/hwmon*/shunt*_resistor",
    "class/hwmon/hwmon*/update_interval",
    # NVIDIA's kernels up to L4T 32
    "bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*",
    "bus/i2c/drivers/ina3221x/*/iio:device*/in_current*_input",
    "bus/i2c/drivers/ina3221x/*/iio:device*/in_voltage*_input",
)

# Rails behind which all others lie: adding the others would count them twice.
TOTALS = {
    "VDD_IN": "Jetson TX2, Xavier NX, Orin NX, Orin Nano",
    "POM_5V_IN": "Jetson Nano",
    "VIN": "Jetson AGX Thor",
}
# Boards without such a rail: the power is the sum of these.
SUMS = {
    "Jetson AGX Xavier": {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"},
    "Jetson AGX Orin": {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"},
}
UNUSED = ("nc", "shunt")

SUM, AUTO = "sum", "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file, and how many of its units make one of SI."""

    path: str
    per_si: float

    @property
    def asked(self) -> board.Source:
        return board.Source(path=self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """`place` is the chip's address on its bus, such as 1-0040, or its hwmon folder where it has none.

    `failures` are those of the files that it needs, by their path.
    """

    chip: str
    place: str
    label: str | None
    number: int
    power: Source | None = None
    current: Source | None = None
    voltage: Source | None = None
    shunt_ohm: float | None = None
    refresh_s: float | None = None
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def sensor(self) -> str:
        return f"{self.chip}@{self.place}"

    @property
    def name(self) -> str:
        """What the user may call it."""
        return self.label or f"{self.sensor}:{self.number}"

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(source for source in (self.power, self.current, self.voltage) if source is not None)

    def called(self, name: str) -> bool:
        """Whether the user means its sensor by `name`: ina226, ina226@40, ina226@1-0040, 1-0040, a label."""
        short = re.sub(r"^\d+-0*", "", self.place)
        names = {self.chip, self.place, self.sensor, f"{self.chip}@{short}", self.name, self.label or self.name}
        return name.lower() in {each.lower() for each in names}


def rails(files: Files) -> list[Rail]:
    """Every rail of the board, in the order of their folders."""
    folders = {str(PurePosixPath(path).parent) for path in (*files.texts, *files.failures)}
    found: list[Rail] = []
    for folder in sorted(folders, key=_in_order):
        found += _old_jetson(files, folder) if "/ina3221x/" in folder else _hwmon(files, folder)
    return found


def _in_order(folder: str) -> list[tuple[int, str]]:
    """hwmon2 before hwmon10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", folder)]


def _hwmon(files: Files, folder: str) -> Iterator[Rail]:
    chip = files.texts.get(f"{folder}/name")
    if not chip:
        return
    device = files.texts.get(f"{folder}/device")
    place = PurePosixPath(device).name if device else PurePosixPath(folder).name
    interval = files.number(f"{folder}/update_interval")
    # Where it says 0 ms, the chip is as quick as it can be.
    told_s = None if interval is None else max(interval, 1) * 1e-3
    known = CHIPS.get(chip)
    refresh_s = told_s or (known.refresh_s if known else None)
    board_label = files.texts.get(f"{folder}/label")
    for number, power, current, voltage, label_of in _rows(files, folder, chip):
        label = files.texts.get(f"{folder}/{label_of}_label") or board_label
        if label is not None and (label.lower() == UNUSED[0] or UNUSED[1] in label.lower()):
            continue
        wanted = {
            name: Source(path=f"{folder}/{file}", per_si=PER_SI[name])
            for name, file in (("power", power), ("curr", current), ("in", voltage))
            if file is not None
        }
        own = f"{folder}/shunt{number}_resistor"
        shunt_uohm = files.number(own if files.has(own) else f"{folder}/shunt_resistor")
        yield Rail(
            chip=chip,
            place=place,
            label=label,
            number=number,
            power=wanted.get("power"),
            current=wanted.get("curr"),
            voltage=wanted.get("in"),
            shunt_ohm=shunt_uohm * 1e-6 if shunt_uohm else None,
            refresh_s=refresh_s,
            failures=_failures(files, wanted.values()),
        )


_Row = tuple[int, str | None, str | None, str | None, str]


def _rows(files: Files, folder: str, chip: str) -> Iterator[_Row]:
    """Number, files of power, current and voltage, and whose label it is, of each rail of a chip."""

    def there(name: str) -> bool:
        return files.has(f"{folder}/{name}")

    if chip == "ina3221":
        # Without a label the channel is not wired, unless nobody labelled any.
        labelled = any(there(f"in{number}_label") for number in (1, 2, 3))
        for number in (1, 2, 3):
            off = files.texts.get(f"{folder}/in{number}_enable") == "0"
            if there(f"curr{number}_input") and not off and (there(f"in{number}_label") or not labelled):
                yield number, None, f"curr{number}_input", f"in{number}_input", f"in{number}"
    elif chip == "powerz":
        # in1 and on are pins of the plug, not its supply.
        if there("curr1_input"):
            yield 1, None, "curr1_input", "in0_input", "curr1"
    elif chip in CHIPS:
        if not there("curr1_input") and not there("power1_input"):
            return
        current = "curr1_input" if there("curr1_input") else None
        power = "power1_input" if there("power1_input") and (CHIPS[chip].power or current is None) else None
        yield 1, power, current, "in1_input", "power1"
    else:
        for number in range(1, 33):
            kinds = [kind for kind in ("input", "average") if there(f"power{number}_{kind}")]
            if kinds:
                yield number, f"power{number}_{kinds[0]}", None, None, f"power{number}"


def _old_jetson(files: Files, folder: str) -> Iterator[Rail]:
    for number in (0, 1, 2):
        label = files.texts.get(f"{folder}/rail_name_{number}")
        if not label or label.lower() == UNUSED[0]:
            continue
        current = Source(path=f"{folder}/in_current{number}_input", per_si=PER_SI["curr"])
        voltage = Source(path=f"{folder}/in_voltage{number}_input", per_si=PER_SI["in"])
        yield Rail(
            chip="ina3221x",
            place=PurePosixPath(folder).parent.name,
            label=label,
            number=number,
            current=current,
            voltage=voltage,
            refresh_s=CHIPS["ina3221x"].refresh_s,
            failures=_failures(files, (current, voltage)),
        )


def _failures(files: Files, sources: Iterable[Source]) -> tuple[tuple[str, str], ...]:
    failures = []
    for source in sources:
        if source.path not in files.texts:
            failures.append((source.path, files.failures.get(source.path, "ENOENT")))
        elif files.number(source.path) is None:
            failures.append((source.path, "no number"))
    return tuple(failures)


# -- which of them ----------------------------------------------------------------------------------------------------


def choose(found: Sequence[Rail], sensor: str, rail: str) -> tuple[Rail, ...]:
    """The rails that make up what is to be measured: one, or several to be added up.

    Raises NotFoundError naming those that are there, UsageError where it is not clear, AccessError.
    """
    if not found:
        raise NotFoundError(
            "This board shows no power sensor.",
            "Its kernel needs the driver (ina2xx, ina238, ina3221, powerz) and the device tree must name the chip.",
        )
    meant = [each for each in found if not sensor or each.called(sensor)]
    if not meant:
        raise NotFoundError(f"There is no sensor {sensor!r} on this board.", f"There are: {listed(found)}.")
    if rail == AUTO:
        chosen = _usual(meant)
    else:
        chosen = tuple(meant) if rail == SUM else tuple(_named(meant, name) for name in rail.split("+"))
        total = next((each for each in chosen if each.label in TOTALS), None)
        if total is not None and len(chosen) > 1:
            raise UsageError(
                f"{total.label} already holds what the other rails draw: a sum would count it twice.",
                f"Choose --set rail={total.label}, or others: {listed(meant)}.",
            )
    for each in chosen:
        refuse(each)
    return chosen


def _named(meant: Sequence[Rail], name: str) -> Rail:
    chosen = [each for each in meant if name.lower() == each.name.lower()]
    if not chosen:
        raise NotFoundError(f"There is no rail {name!r} on this board.", f"There are: {listed(meant)}.")
    if len(chosen) > 1:
        raise UsageError(f"{len(chosen)} rails are called {name!r}.", f"Name the sensor too: {listed(chosen)}.")
    return chosen[0]


def _usual(meant: Sequence[Rail]) -> tuple[Rail, ...]:
    """The board's total where it is known what that is; else the only rail. Known chips come before others."""
    meant = [each for each in meant if each.chip in CHIPS] or list(meant)
    totals = [each for each in meant if each.label in TOTALS]
    if len(totals) == 1:
        return (totals[0],)
    labels = {each.label for each in meant}
    for parts in SUMS.values():
        if parts <= labels:
            return tuple(each for each in meant if each.label in parts)
    if len(meant) == 1:
        return (meant[0],)
    raise UsageError(
        f"This board has {len(meant)} rails, and which of them feed the others is not known.",
        f"Choose --set rail=NAME, rail=NAME+NAME, rail=sum or --set sensor=NAME: {listed(meant)}.",
    )


def refuse(rail: Rail) -> None:
    """Raises AccessError or NotFoundError for a rail that cannot be read."""
    for path, failure in rail.failures:
        if failure in ("EACCES", "EPERM"):
            raise AccessError(f"No permission to read {path}.", permit([path for path, _ in rail.failures]))
    for path, failure in rail.failures:
        raise NotFoundError(
            f"The rail {rail.name} cannot be read: {path} says {failure}.",
            "Choose another rail; the chip may be without power, or the channel not wired.",
        )


def names(chosen: Sequence[Rail]) -> list[str]:
    """One for each, no two alike."""
    plain = [rail.name for rail in chosen]
    return [
        name if plain.count(name) == 1 else f"{name} {rail.sensor}" for rail, name in zip(chosen, plain, strict=True)
    ]


def listed(found: Sequence[Rail]) -> str:
    return ", ".join(f"{each.name} ({each.sensor})" if each.label else each.name for each in found)
