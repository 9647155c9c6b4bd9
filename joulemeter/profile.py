"""Profiles: what is known about devices, batteries, models and rigs, as TOML with units and sources.

A profile is a file `profiles/FOLDER/NAME.toml` of this package, or any file of the same form given by its path.
Quantities are strings with units ("104.6ms"); here they are SI floats, the unit the suffix of the attribute's name.
What is not known is absent: None or an empty tuple, never a guess.

`grade` says how far a figure may be trusted: "datasheet" and "vendor" were read in the maker's own document,
"second-hand" is a maker's figure as somebody else quotes it, "third-party" was measured or reported by somebody else,
"derived" was fitted, computed or assumed here (`source` says from what), "memory-check" still has to be held against
the named source.
"""

from __future__ import annotations

import difflib
import importlib.resources
import itertools
import re
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import msgspec

from joulemeter.errors import UsageError
from joulemeter.tables import (
    Amperes,
    Bytes,
    Celsius,
    Coulombs,
    Hertz,
    Joules,
    Kelvins,
    Loaded,
    Ohms,
    P,
    Ratio,
    Seconds,
    Table,
    Volts,
    Watts,
    parse,
    read,
    refuse_twins,
)

Grade = Literal["datasheet", "vendor", "second-hand", "third-party", "derived", "memory-check"]
# What a figure of power or current covers. The same work on the same silicon differs by two or three between them.
Scope = Literal[
    "core_rail",
    "mcu_supply",
    "board_dc",
    "module_rail",
    "accelerator_only",
    "gpu_board",
    "system_ac",
]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Figures(Table, frozen=True):
    """A table of figures that share one source."""

    source: str
    grade: Grade


class Compute(Figures, frozen=True):
    core: str
    clock_hz: Hertz | None = msgspec.field(name="clock", default=None)


class Memory(Figures, frozen=True):
    flash_bytes: Bytes | None = msgspec.field(name="flash", default=None)
    ram_bytes: Bytes | None = msgspec.field(name="ram", default=None)


class Supply(Figures, frozen=True):
    """`min_v` to `max_v` is what the chip accepts, `board_v` what the board delivers to it, or is itself fed with."""

    min_v: Volts | None = msgspec.field(name="min", default=None)
    max_v: Volts | None = msgspec.field(name="max", default=None)
    board_v: Volts | None = msgspec.field(name="board", default=None)

    def __post_init__(self) -> None:
        if (self.min_v is None) is not (self.max_v is None):
            raise ValueError("min and max go together")
        if self.min_v is None and self.board_v is None:
            raise ValueError("give min and max, board, or all three")
        if self.min_v is not None and self.max_v is not None and self.min_v >= self.max_v:
            raise ValueError("min is not below max")


class Rated(Figures, frozen=True):
    """The most that the maker says it draws: with a time an upper bound on energy, never a measurement."""

    scope: Scope
    power_w: Watts = msgspec.field(name="power")


class Wiring(Figures, frozen=True):
    """Where to insert the meter, which pin to use as the trigger, and that pin's high level."""

    break_in: str
    trigger: str | None = None
    gpio_v: Volts | None = msgspec.field(name="gpio", default=None)


class Current(Figures, frozen=True):
    """The current of one state of the device: one figure, or the range that the source gives.

    Without `scope` it is the chip's own.
    """

    state: str
    condition: str
    scope: Scope | None = None
    current_a: Amperes | None = msgspec.field(name="current", default=None)
    range_a: tuple[Amperes, Amperes] | None = msgspec.field(name="range", default=None)
    voltage_v: Volts | None = msgspec.field(name="voltage", default=None)

    def __post_init__(self) -> None:
        if (self.current_a is None) is (self.range_a is None):
            raise ValueError("give either current or range")
        if self.range_a and self.range_a[0] >= self.range_a[1]:
            raise ValueError("range is not from low to high")

    @property
    def nominal_a(self) -> float:
        """The figure, or the middle of the range."""
        given: list[float] = [figure for figure in (self.current_a, *(self.range_a or ())) if figure is not None]
        return sum(given) / len(given)


class Power(Figures, frozen=True):
    """The power of one state of the device, where the source gives watts: one figure, or a range.

    Without `scope` the source does not say what it covers.
    """

    state: str
    condition: str
    scope: Scope | None = None
    statistic: Literal["mean", "typical", "peak", "rated"] | None = None
    power_w: Watts | None = msgspec.field(name="power", default=None)
    range_w: tuple[Watts, Watts] | None = msgspec.field(name="range", default=None)

    def __post_init__(self) -> None:
        if (self.power_w is None) is (self.range_w is None):
            raise ValueError("give either power or range")
        if self.range_w and self.range_w[0] >= self.range_w[1]:
            raise ValueError("range is not from low to high")

    @property
    def nominal_w(self) -> float:
        """The figure, or the middle of the range."""
        given: list[float] = [figure for figure in (self.power_w, *(self.range_w or ())) if figure is not None]
        return sum(given) / len(given)


class Timing(Figures, frozen=True):
    """How long a model took: `time_s` is seconds per inference, a batch of `batch` inferences at a time."""

    model: str
    runtime: str
    precision: str
    time_s: Seconds = msgspec.field(name="time")
    batch: Count = 1
    statistic: str | None = None
    firmware_bytes: Bytes | None = msgspec.field(name="firmware", default=None)


class Device(Table, frozen=True):
    """A board, module or card. `instruments` are the meters that suit it, the best first, and `triggers` what can mark
    its inferences. Where it has rails of its own to report, `total` says which of them is the whole.
    """

    name: str
    maker: str
    device_class: Literal["mcu", "sbc", "accelerator", "gpu"] = msgspec.field(name="class")
    compute: Compute
    aliases: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    total: str | None = None
    memory: Memory | None = None
    supply: Supply | None = None
    rated: Rated | None = msgspec.field(name="rated_power", default=None)
    wiring: Wiring | None = None
    currents: tuple[Current, ...] = msgspec.field(name="current", default=())
    powers: tuple[Power, ...] = msgspec.field(name="power", default=())
    timings: tuple[Timing, ...] = msgspec.field(name="timing", default=())
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_twins("current", (current.state for current in self.currents))
        refuse_twins("power", (power.state for power in self.powers))
        refuse_twins(
            "timing", (f"{row.model}, {row.runtime}, {row.precision}, batch {row.batch}" for row in self.timings)
        )


class Capacity(Figures, frozen=True):
    """The charge a fresh cell delivers, and the conditions under which its maker says so.

    `load_ohm` or `current_a` is what it was discharged with, `energy_j` the energy where a source gives one.
    """

    charge_c: Coulombs = msgspec.field(name="charge")
    energy_j: Joules | None = msgspec.field(name="energy", default=None)
    load_ohm: Ohms | None = msgspec.field(name="load", default=None)
    current_a: Amperes | None = msgspec.field(name="current", default=None)
    cutoff_v: Volts | None = msgspec.field(name="cutoff", default=None)
    temperature_degc: Celsius | None = msgspec.field(name="temperature", default=None)


class RestVoltage(Figures, frozen=True):
    """Volts without load against depth of discharge: 0 fresh, 1 when the charge of `capacity` is gone."""

    depth: tuple[Share, ...]
    voltage_v: tuple[Volts, ...] = msgspec.field(name="voltage")

    def __post_init__(self) -> None:
        _refuse_bad_table("depth", self.depth, "voltage", self.voltage_v)
        _refuse_rise("voltage", self.voltage_v)


class Resistance(Figures, frozen=True):
    """Internal resistance against depth of discharge D, in one of two forms.

    fresh_ohm, knee, width, slope   R0 = fresh (1 + slope D + exp((D - knee) / width))
    depth, resistance_ohm           a table, as measured with whole pulses: R0 and the fast part together

    The fast part is fast_share of R0 and answers within `fast_time_s`. `temperature_degc` is where the figures hold.
    """

    fresh_ohm: Ohms | None = msgspec.field(name="fresh", default=None)
    knee: Positive | None = None
    width: Positive | None = None
    slope: Annotated[float, msgspec.Meta(ge=0)] | None = None
    depth: tuple[Share, ...] = ()
    resistance_ohm: tuple[Ohms, ...] = msgspec.field(name="resistance", default=())
    fast_share: Positive | None = None
    fast_time_s: Seconds | None = msgspec.field(name="fast_time", default=None)
    temperature_degc: Celsius | None = msgspec.field(name="temperature", default=None)

    def __post_init__(self) -> None:
        form = [part is not None for part in (self.fresh_ohm, self.knee, self.width, self.slope)]
        table = bool(self.depth or self.resistance_ohm)
        if not (all(form) and not table) and not (table and not any(form)):
            raise ValueError("give either fresh, knee, width and slope, or depth and resistance")
        if table:
            _refuse_bad_table("depth", self.depth, "resistance", self.resistance_ohm)
        if (self.fast_share is None) is not (self.fast_time_s is None):
            raise ValueError("fast_share and fast_time go together")


class Arrhenius(Figures, frozen=True):
    """Resistance against temperature: R(T) = R(T0) exp(B (1/T - 1/T0)), B in kelvins."""

    constant_k: Kelvins = msgspec.field(name="constant")


class SlowWells(Figures, frozen=True):
    """The kinetic battery model: a share of the charge is at hand, the rest follows with a time constant, 1/k'."""

    at_hand: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    time_constant_s: Seconds = msgspec.field(name="time_constant")


class RateCapacity(Figures, frozen=True):
    """Charge delivered at each constant current; in between, logarithm over logarithm."""

    current_a: tuple[Amperes, ...] = msgspec.field(name="current")
    charge_c: tuple[Coulombs, ...] = msgspec.field(name="charge")

    def __post_init__(self) -> None:
        _refuse_bad_table("current", self.current_a, "charge", self.charge_c)
        _refuse_rise("charge", self.charge_c)


class Limits(Figures, frozen=True):
    """The largest currents the cell is meant for."""

    continuous_a: Amperes | None = msgspec.field(name="continuous", default=None)
    pulse_a: Amperes | None = msgspec.field(name="pulse", default=None)

    def __post_init__(self) -> None:
        if self.continuous_a is not None and self.pulse_a is not None and self.pulse_a < self.continuous_a:
            raise ValueError("pulse is below continuous")


class Storage(Figures, frozen=True):
    """What a cell loses without a load: a ratio of its charge per year, and the age beyond which nobody vouches."""

    loss_per_year: Ratio | None = None
    shelf_life_s: Seconds | None = msgspec.field(name="shelf_life", default=None)


class LossDoubling(Figures, frozen=True):
    """The loss of `storage` doubles with each `step_k` of warmth."""

    step_k: Kelvins = msgspec.field(name="step")


class Cell(Table, frozen=True):
    """A cell. Only its charge must be known; without `ocv` or `resistance` a projection is by charge alone."""

    name: str
    chemistry: str
    nominal_v: Volts = msgspec.field(name="nominal")
    capacity: Capacity
    rechargeable: bool = False
    aliases: tuple[str, ...] = ()
    ocv: RestVoltage | None = None
    resistance: Resistance | None = None
    arrhenius: Arrhenius | None = None
    slow: SlowWells | None = None
    rate: RateCapacity | None = None
    limits: Limits | None = None
    storage: Storage | None = None
    loss_doubling: LossDoubling | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        energy_j = self.capacity.energy_j
        # Over a life the mean voltage of any chemistry stays within these of its nominal one.
        if energy_j is not None and not 0.5 < energy_j / (self.capacity.charge_c * self.nominal_v) < 1.25:
            raise ValueError("energy, charge and nominal voltage do not fit together: check mAh and Wh")
        if self.slow is not None and self.rate is not None:
            raise ValueError("slow and rate tell the same loss: give one of them")
        if self.arrhenius is not None and self.resistance is None:
            raise ValueError("arrhenius needs a resistance")
        if self.loss_doubling is not None and (self.storage is None or self.storage.loss_per_year is None):
            raise ValueError("loss_doubling needs a loss_per_year in storage")


class Input(Table, frozen=True):
    """`shape` is one sample, without the batch dimension."""

    shape: tuple[Count, ...]
    description: str | None = None


class Accuracy(Figures, frozen=True):
    metric: str
    value: Ratio
    kind: Literal["reported", "target"]


class Training(Table, frozen=True):
    """How weights that come with the package were made: by what, from what, in which random state.

    `samples` were trained on, `held_out` others gave the variants' accuracy. Without `data` nothing was trained.
    """

    built_by: str
    method: str
    seed: int
    data: str | None = None
    samples: Count | None = None
    held_out: Count | None = None


class Variant(Table, frozen=True):
    """One file of the model. `sha256` is the hash of that file, `size` its exact length in bytes.

    Where the model has `training`, the file lies beside the card; otherwise where `source` says. `accuracy` is top-1 of
    this file on the held-out samples.
    """

    precision: str
    file: str | None = None
    size: Count | None = None
    sha256: str | None = None
    accuracy: Ratio | None = None


class Model(Table, frozen=True):
    name: str
    task: str
    source: str
    parameters: Count | None = None
    layers: str | None = None
    dataset: str | None = None
    aliases: tuple[str, ...] = ()
    input: Input | None = None
    accuracy: Accuracy | None = None
    training: Training | None = None
    variants: tuple[Variant, ...] = msgspec.field(name="variant", default=())
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_twins("variant", (variant.precision for variant in self.variants))


class Inference(Table, frozen=True):
    """What the board runs: names as in the timings of its device profile.

    `card = false` is said of a network that has no profile in profiles/models.
    """

    model: str
    runtime: str
    precision: str
    batch: Count = 1
    card: bool = True


class Assumed(Table, frozen=True):
    """Stand-ins for figures that nobody has published, for the simulated board alone; `because` says from where.

    `time_s` is one inference. The board's draw is a current or a power.
    """

    because: str
    time_s: Seconds | None = msgspec.field(name="time", default=None)
    active_a: Amperes | None = msgspec.field(name="active", default=None)
    idle_a: Amperes | None = msgspec.field(name="idle", default=None)
    active_w: Watts | None = msgspec.field(name="active_power", default=None)
    idle_w: Watts | None = msgspec.field(name="idle_power", default=None)

    def __post_init__(self) -> None:
        if all(part is None for part in (self.time_s, self.active_a, self.idle_a, self.active_w, self.idle_w)):
            raise ValueError("nothing is assumed")
        for amperes, watts, what in ((self.active_a, self.active_w, "active"), (self.idle_a, self.idle_w, "idle")):
            if amperes is not None and watts is not None:
                raise ValueError(f"give either {what} or {what}_power")


class Simulation(Table, frozen=True):
    """How the simulated board behaves: one window each `period_s`, `idle_state` in between.

    `trigger` and `workload` stand in for the rig's where only the real board has them, `settings` are the simulator's;
    `inferences_per_window` is how many a window holds, where the meter needs long ones. `windows` are recorded.
    """

    period_s: Seconds = msgspec.field(name="period")
    idle_state: str = "idle"
    active_state: str = "active"
    inferences_per_window: Count = 1
    windows: Count = 10
    trigger: str | None = None
    workload: str | None = None
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    assumed: Assumed | None = None


class Rig(Table, frozen=True):
    """A set-up on somebody's bench: a device, its meter and what runs. `device` and `cell` are names or paths.

    `meter` is KEY or KEY@ADDRESS, `settings` are its own. `supply_v` is the device's voltage: a meter that can be the
    supply gives it, one that sees no voltage is told it. `options` are the workload's.
    """

    name: str
    device: str
    meter: str
    trigger: str
    supply_v: Volts | None = msgspec.field(name="supply", default=None)
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    inference: Inference | None = None
    workload: str | None = None
    options: dict[str, str] = msgspec.field(default_factory=dict)
    inferences_per_window: Count | None = None
    simulation: Simulation | None = None
    cell: str | None = None
    every_s: Seconds | None = msgspec.field(name="every", default=None)
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Profile = Device | Cell | Model | Rig

# A kind is named by the folder of its profiles.
KINDS: dict[str, type[Profile]] = {"devices": Device, "batteries": Cell, "models": Model, "rigs": Rig}
_SINGULAR: dict[str, type[Profile]] = {"device": Device, "battery": Cell, "model": Model, "rig": Rig}


@overload
def load(kind: Literal["device", "devices"], name_or_path: str | Path) -> Device: ...
@overload
def load(kind: Literal["battery", "batteries"], name_or_path: str | Path) -> Cell: ...
@overload
def load(kind: Literal["model", "models"], name_or_path: str | Path) -> Model: ...
@overload
def load(kind: Literal["rig", "rigs"], name_or_path: str | Path) -> Rig: ...
@overload
def load(kind: str, name_or_path: str | Path) -> Profile: ...
def load(kind: str, name_or_path: str | Path) -> Profile:
    """The profile of that name, alias or path. Raises UsageError."""
    return find(kind, name_or_path).profile


@overload
def find(kind: type[P], name_or_path: str | Path) -> Loaded[P]: ...
@overload
def find(kind: str, name_or_path: str | Path) -> Loaded[Profile]: ...
def find(kind: type[Any] | str, name_or_path: str | Path) -> Loaded[Any]:
    """As `load`, with path, text and hash; the kind may also be the class of profile wanted. Raises UsageError.

    Case and punctuation do not matter in a name. Whatever ends in .toml or holds a slash is a path.
    """
    struct: type[Any] = _struct(kind) if isinstance(kind, str) else kind
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return read(struct, Path(text), text)
    folder = _folder(struct)
    file = _resolve(folder, text)
    return read(struct, file, f"profiles/{folder}/{file.name}")


def names(kind: str) -> list[str]:
    """The names of the profiles of that kind that come with the package. Raises UsageError."""
    return [_stem(file) for file in _files(_folder(_struct(kind)))]


def validate(path: Path, kind: str | None = None) -> Loaded[Profile]:
    """Read a profile file and, for a rig, the profiles it names. Raises UsageError.

    Without `kind` it is told by the folder: devices, batteries, models or rigs.
    """
    if kind is None:
        kind = path.absolute().parent.name
        if kind not in KINDS:
            raise UsageError(f"{path} does not lie in a folder of profiles.", f"Say which kind it is: {_or(KINDS)}.")
    loaded = find(kind, path)
    if isinstance(loaded.profile, Rig):
        load("device", loaded.profile.device)
        if loaded.profile.inference is not None and loaded.profile.inference.card:
            load("model", loaded.profile.inference.model)
        if loaded.profile.cell is not None:
            load("battery", loaded.profile.cell)
    return loaded


def fold(name: str) -> str:
    """A name without case and punctuation, so that "TFLite Micro" is also "tflite-micro"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _root() -> Traversable:
    return importlib.resources.files("joulemeter.profiles")


def _files(folder: str) -> list[Traversable]:
    return sorted(
        (file for file in (_root() / folder).iterdir() if file.name.endswith(".toml")), key=lambda file: file.name
    )


def _stem(file: Traversable) -> str:
    return file.name.removesuffix(".toml")


def _struct(kind: str) -> type[Profile]:
    struct = KINDS.get(kind) or _SINGULAR.get(kind)
    if struct is None:
        raise UsageError(f"There are no profiles of the kind {kind!r}.", f"Known are {_or(KINDS)}.")
    return struct


def _folder(struct: type[Profile]) -> str:
    return next(folder for folder, each in KINDS.items() if each is struct)


def _or(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _resolve(folder: str, name: str) -> Traversable:
    """The one file that this name fits: by its own name first, then by aliases."""
    files = _files(folder)
    fitting = [file for file in files if fold(_stem(file)) == fold(name)]
    known = [_stem(file) for file in files]
    if not fitting:
        for file in files:
            aliases = parse(file.read_bytes(), f"profiles/{folder}/{file.name}").get("aliases", [])
            known += aliases
            if fold(name) in map(fold, aliases):
                fitting.append(file)
    if not fitting:
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        remedy = f"Did you mean {_or(close)}?" if close else f"Known are {', '.join(map(_stem, files))}."
        raise UsageError(f"There is no profile {name!r} in profiles/{folder}.", remedy)
    if len(fitting) > 1:
        both = " and ".join(f"profiles/{folder}/{file.name}" for file in fitting)
        raise UsageError(f"{name!r} fits {both}.", "Use one of their full names.")
    return fitting[0]


def _refuse_bad_table(place: str, places: tuple[float, ...], what: str, values: tuple[float, ...]) -> None:
    if not places or len(places) != len(values):
        raise ValueError(f"{place} and {what} must be as long as each other")
    if any(left >= right for left, right in itertools.pairwise(places)):
        raise ValueError(f"{place} must rise")


def _refuse_rise(what: str, values: tuple[float, ...]) -> None:
    if any(left < right for left, right in itertools.pairwise(values)):
        raise ValueError(f"{what} must not rise")
