from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from joulemeter import profile, simulated, tables
from joulemeter.errors import UsageError
from joulemeter.synthetic import Load, Step, parse_load

MODELS = Path(__file__).parents[2] / "shared" / "data" / "models"
EVERY = [(kind, name) for kind in profile.KINDS for name in profile.names(kind)]

DEVICE = """
name = "Board"
maker = "Somebody"
class = "mcu"
[compute]
core = "Cortex-M4F"
clock = "80MHz"
source = "its manual"
grade = "datasheet"
"""
CURRENT = """
[[current]]
state = "active"
current = "8mA"
condition = "at full speed"
source = "its manual"
grade = "datasheet"
"""
TIMING = """
[[timing]]
model = "dense1"
runtime = "TFLite Micro"
precision = "{precision}"
time = "20ms"
source = "its maker"
grade = "vendor"
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty set of profiles in place of those of the package."""
    for folder in profile.KINDS:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(profile, "_root", lambda: tmp_path)
    return tmp_path


def write(path: Path, *parts: str) -> Path:
    path.write_text("".join(parts))
    return path


# --- every profile in the package


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_profile_is_valid(kind: str, name: str) -> None:
    path = Path(str(profile._root())) / kind / f"{name}.toml"
    assert profile.validate(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_profile_is_forgotten() -> None:
    """The folders hold nothing that `names` does not list."""
    root = Path(str(profile._root()))
    assert {path.stem for path in root.glob("*/*.toml")} == {name for _, name in EVERY}
    assert {"stm32f4discovery", "nucleo-l4r5zi", "nrf52840-dk", "sparkfun-edge"} <= set(profile.names("device"))


def test_no_name_fits_two_profiles() -> None:
    for kind in profile.KINDS:
        taken: dict[str, str] = {}
        for name in profile.names(kind):
            aliases = profile.find(kind, name).profile.aliases
            for label in {profile.fold(label) for label in (name, *aliases)}:
                assert taken.setdefault(label, name) == name


def test_timings_name_known_models_and_precisions() -> None:
    for name in profile.names("device"):
        for timing in profile.load("device", name).timings:
            model = profile.load("model", timing.model)
            assert timing.precision in {variant.precision for variant in model.variants}


def test_figures_are_those_of_the_sources() -> None:
    """Zingg and Zimmermann 2019, table of the STM32F4DISCOVERY, microseconds: median of one inference."""
    board = profile.load("device", "stm32f4discovery")
    published = {
        ("dense1", "TFLite Micro"): 1_120,
        ("dense1", "Cube.AI"): 3_950,
        ("dense1", "nnom+CMSIS-NN"): 207,
        ("conv3dense1", "TFLite Micro"): 331_600,
        ("conv3dense1", "Cube.AI"): 300_340,
        ("conv3dense1", "nnom+CMSIS-NN"): 104_600,
    }
    assert {(row.model, row.runtime): round(row.time_s * 1e6) for row in board.timings} == published
    assert board.compute.clock_hz == 168e6
    assert board.memory is not None
    assert (board.memory.flash_bytes, board.memory.ram_bytes) == (1_048_576, 196_608)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("jetson-nano", {"dense1": (32, 10), "conv3dense1": (564, 535), "mobilenet-cifar10": (4916, 4453)}),
        ("jetson-tx2", {"dense1": (16, 7), "conv3dense1": (404, 388), "mobilenet-cifar10": (3600, 3210)}),
        ("jetson-agx-xavier", {"dense1": (10, 4), "conv3dense1": (260, 259), "mobilenet-cifar10": (2205, 2079)}),
        ("quadro-k620", {"dense1": (6, 4), "conv3dense1": (182, 184), "mobilenet-cifar10": (1200, 1210)}),
    ],
)
def test_times_of_the_faster_boards_are_those_of_the_slides(name: str, published: dict[str, tuple[int, int]]) -> None:
    """Zingg and Zimmermann 2019, TFLite in float32, microseconds for one sample at batch 1 and 32.

    With the most that the source says each draws they bound the energy: Xavier, MobileNet, 30 W: 66.2 mJ.
    """
    board = profile.load("device", name)
    rows = [row for row in board.timings if (row.runtime, row.precision) == ("TFLite", "float32")]
    found = {(row.model, row.batch): round(row.time_s * 1e6) for row in rows}
    assert found == {
        (model, batch): t for model, two in published.items() for batch, t in zip((1, 32), two, strict=True)
    }
    assert board.rated is not None
    bound_mj = {"jetson-nano": 49.2, "jetson-tx2": 54.0, "jetson-agx-xavier": 66.2, "quadro-k620": 54.0}[name]
    assert board.rated.power_w * published["mobilenet-cifar10"][0] * 1e-3 == pytest.approx(bound_mj, abs=0.06)


def test_a_range_of_power_gives_its_middle_and_one_figure_only() -> None:
    stick = profile.load("device", "ncs2")
    assert [(row.state, row.nominal_w, row.scope) for row in stick.powers] == [("active", 1.5, "accelerator_only")]
    with pytest.raises(ValueError, match="give either power or range"):
        profile.Power(state="a", condition="b", source="c", grade="vendor")
    with pytest.raises(ValueError, match="min and max go together"):
        profile.Supply(min_v=tables.Volts(1), source="c", grade="vendor")


def test_parameter_counts_follow_from_the_layers() -> None:
    dense = 28 * 28 * 10 + 10
    conv = (3 * 3 * 1 * 32 + 32) + (3 * 3 * 32 * 64 + 64) + (7 * 7 * 64 * 32 + 32) + (32 * 10 + 10)
    assert profile.load("model", "dense1").parameters == dense
    assert profile.load("model", "conv3dense1").parameters == conv


@pytest.mark.outside
@pytest.mark.parametrize("name", ["kws", "vww", "ic", "ad"])
def test_reference_models_are_the_files_described(name: str) -> None:
    """Size, hash, input and parameters against the files of mlcommons/tiny, read by their flatbuffer schema."""
    if not MODELS.is_dir():
        pytest.skip("the MLPerf Tiny reference models are not here")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    weighted = {
        schema.BuiltinOperator.CONV_2D,
        schema.BuiltinOperator.DEPTHWISE_CONV_2D,
        schema.BuiltinOperator.FULLY_CONNECTED,
    }
    model = profile.load("model", name)
    for variant in model.variants:
        assert variant.file is not None
        content = (MODELS / Path(variant.file).name).read_bytes()
        assert (variant.size, variant.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        tree: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = tree.subgraphs[0]
        parameters = 0
        for operator in graph.operators:
            code = tree.operatorCodes[operator.opcodeIndex]
            if max(code.builtinCode, code.deprecatedBuiltinCode) in weighted:
                parameters += sum(math.prod(graph.tensors[index].shape) for index in operator.inputs[1:])
        assert model.parameters == parameters
        assert model.input is not None
        assert (1, *model.input.shape) == tuple(graph.tensors[graph.inputs[0]].shape)


def test_coin_cell() -> None:
    cell = profile.load("battery", "CR2032")
    assert cell.limits is not None
    assert cell.limits.pulse_a == pytest.approx(0.015)
    assert cell.limits.continuous_a == pytest.approx(0.003)
    assert cell.capacity.charge_c == pytest.approx(0.235 * 3600)
    assert cell.capacity.temperature_degc == pytest.approx(21)


# --- loading


def test_names_ignore_case_and_punctuation_and_know_aliases() -> None:
    by_name = profile.load("device", "nrf52840-dk")
    assert profile.load("device", "nRF52840 DK") == profile.load("device", "pca10056") == by_name


def test_find_tells_path_and_hash(tmp_path: Path) -> None:
    built_in = profile.find(profile.Cell, "cr2032")
    assert built_in.path == "profiles/batteries/cr2032.toml"
    path = write(tmp_path / "mine.toml", DEVICE)
    mine = profile.find(profile.Device, path)
    assert (mine.path, mine.profile.name) == (str(path), "Board")
    assert mine.text == DEVICE
    assert mine.sha256 == hashlib.sha256(DEVICE.encode()).hexdigest()
    assert mine.profile.supply is None, "what the file does not say stays unknown"
    assert mine.profile.timings == ()


def test_unknown_name_offers_near_ones() -> None:
    with pytest.raises(UsageError, match=r"'nrf52480'.*nrf52840"):
        profile.load("device", "nrf52480")
    with pytest.raises(UsageError, match=r"'zzzz'.*Known are .*cr2032, .*cr2450"):
        profile.load("battery", "zzzz")


def test_name_that_fits_twice_lists_both(shelf: Path) -> None:
    for name in ("one", "two"):
        write(shelf / "devices" / f"{name}.toml", 'aliases = ["twin"]', DEVICE)
    with pytest.raises(UsageError, match=r"devices/one\.toml and profiles/devices/two\.toml"):
        profile.load("device", "Twin")


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ('clok = "80MHz"', 'clock = "80MHz"', r"compute\.clok is not a known key\. Did you mean 'clock'\?"),
        ('clock = "80"', 'clock = "80MHz"', r"compute\.clock: '80' is not a quantity in hertz"),
        ('clock = "80mV"', 'clock = "80MHz"', r"compute\.clock: '80mV' is not a quantity in hertz"),
        ('clock = "-1MHz"', 'clock = "80MHz"', r"compute\.clock: '-1MHz' must be greater than zero"),
        ("clock = 80", 'clock = "80MHz"', r"compute\.clock: 80 must be text with a unit"),
        ('class = "toaster"', 'class = "mcu"', r"class: Invalid enum value 'toaster'"),
        ('grade = "A"', 'grade = "datasheet"', r"compute\.grade: Invalid enum value 'A'"),
        ("", 'name = "Board"', r"missing required field `name`"),
        ("name = ", 'name = "Board"', r"is not TOML: .*line 2"),
        ("frobnicate = 1", 'name = "Board"', r"frobnicate is not a known key\. Known there are aliases, class"),
    ],
)
def test_bad_file_is_named_with_key_and_value(tmp_path: Path, wrong: str, right: str, message: str) -> None:
    assert right in DEVICE
    path = write(tmp_path / "bad.toml", DEVICE.replace(right, wrong))
    with pytest.raises(UsageError, match=message) as caught:
        profile.load("device", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('currant = "8mA"', r"current\[0\]\.currant is not a known key\. Did you mean 'current'\?"),
        ('current = "8"', r"current\[0\]\.current: '8' is not a quantity in amperes"),
        ('range = ["9mA", "8mA"]', r"current\[0\]: range is not from low to high"),
        ('range = ["9mA"]', r"current\[0\]\.range: "),
        ('voltage = "3V"', r"current\[0\]: give either current or range"),
        ('current = "8mA"\nrange = ["8mA", "9mA"]', r"current\[0\]: give either current or range"),
    ],
)
def test_bad_current_is_named_by_its_place(tmp_path: Path, wrong: str, message: str) -> None:
    path = write(tmp_path / "bad.toml", DEVICE, CURRENT.replace('current = "8mA"', wrong))
    with pytest.raises(UsageError, match=message):
        profile.load("device", path)


def test_states_and_timings_are_given_once(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.toml", DEVICE, CURRENT, CURRENT)
    with pytest.raises(UsageError, match="current 'active' is given twice"):
        profile.load("device", path)
    path = write(tmp_path / "again.toml", DEVICE, TIMING.format(precision="int8") * 2)
    with pytest.raises(UsageError, match="timing 'dense1, TFLite Micro, int8, batch 1' is given twice"):
        profile.load("device", path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml cannot be read: No such file"):
        profile.load("rig", tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        profile.load("rig", tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not TOML"):
        profile.load("rig", binary)


def test_memory_sizes(tmp_path: Path) -> None:
    memory = '[memory]\nflash = "{}"\nsource = "its manual"\ngrade = "datasheet"\n'
    known = profile.load("device", write(tmp_path / "a.toml", DEVICE, memory.format("1524KiB"))).memory
    assert known is not None
    assert known.flash_bytes == 1524 * 1024
    assert known.ram_bytes is None
    with pytest.raises(UsageError, match=r"memory\.flash: '1MB' is not a memory size"):
        profile.load("device", write(tmp_path / "b.toml", DEVICE, memory.format("1MB")))


def test_validate_tells_the_kind_by_the_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "board.toml", DEVICE)
    assert profile.validate(path, "device").profile.name == "Board"
    with pytest.raises(UsageError, match=r"Say which kind it is: devices, batteries, models or rigs\."):
        profile.validate(path)
    with pytest.raises(UsageError, match="no profiles of the kind 'toaster'"):
        profile.validate(path, "toaster")


@pytest.mark.parametrize(("key", "message"), [("device", "devices"), ("model", "models"), ("cell", "batteries")])
def test_validate_follows_what_a_rig_names(tmp_path: Path, key: str, message: str) -> None:
    named = {"device": "stm32f4discovery", "model": "dense1", "cell": "cr2032"} | {key: "qqqqqq"}
    text = (
        'name = "bench"\nmeter = "ppk2"\ntrigger = "d0"\n'
        f'device = "{named["device"]}"\ncell = "{named["cell"]}"\n'
        f'[inference]\nmodel = "{named["model"]}"\nruntime = "Cube.AI"\nprecision = "float16"\n'
    )
    with pytest.raises(UsageError, match=f"no profile 'qqqqqq' in profiles/{message}"):
        profile.validate(write(tmp_path / "bench.toml", text), "rig")


def test_scalars_carry_their_unit() -> None:
    """Every quantity's attribute ends in its unit, every key of the file does without."""
    suffixes = {"A": "_a", "V": "_v", "s": "_s", "Hz": "_hz", "C": "_c", "ohm": "_ohm", "degC": "_degc"}
    checked = 0
    for struct in (*profile.KINDS.values(), *tables.Table.__subclasses__(), *profile.Figures.__subclasses__()):
        for field in msgspec.structs.fields(struct):
            for kind in (field.type, *get_args(field.type)):
                if isinstance(kind, type) and issubclass(kind, tables.Quantity) and kind.unit in suffixes:
                    assert field.name.endswith(suffixes[kind.unit])
                    assert field.encode_name == field.name.removesuffix(suffixes[kind.unit])
                    checked += 1
    assert checked > 10


# --- the simulated board


def test_demo_rig_draws_what_its_profile_says() -> None:
    rig = profile.load("rig", "demo")
    load = simulated.rig_load(rig)
    # 40 mA for 104.6 ms, then the middle of 0.3 mA and 0.5 mA until 250 ms are over.
    assert load.pulse_charge_c(0) == pytest.approx(40e-3 * 104.6e-3)
    assert load.pulse_duration_s(0) == pytest.approx(104.6e-3)
    assert load.period_s == pytest.approx(0.25)
    assert load.cycle_charge_c == pytest.approx(40e-3 * 104.6e-3 + 0.4e-3 * (250e-3 - 104.6e-3))
    assert [step.lines for step in load.steps] == [1, 0]
    cell = profile.load("battery", rig.cell or "")
    assert cell.limits is not None
    assert cell.limits.pulse_a is not None
    assert load.steps[0].current_a > cell.limits.pulse_a, "the demo is to show the pulse warning"


def test_load_as_text_is_the_same_load() -> None:
    load = simulated.rig_load(profile.load("rig", "demo"))
    assert parse_load(simulated.load_text(load)).steps == load.steps
    odd = Load(steps=(Step(duration_s=1 / 3, current_a=1e-9 / 7, lines=0b10000101), Step(duration_s=2.0, current_a=0)))
    assert parse_load(simulated.load_text(odd)).steps == odd.steps


def test_load_needs_a_timing_a_current_and_a_long_enough_period() -> None:
    board = profile.load("device", "stm32f4discovery")
    with pytest.raises(UsageError, match=r"no timing of kws, TFLite Micro, batch 1\. It has dense1, TFLite Micro"):
        simulated.simulated_load(board, "kws", "TFLite Micro", 1.0, "stop")
    with pytest.raises(UsageError, match=r"no timing of dense1, Cube\.AI, int8"):
        simulated.simulated_load(board, "dense1", "Cube.AI", 1.0, "stop", precision="int8")
    with pytest.raises(UsageError, match=r"no current for the state 'coma'\. It has active, .*standby"):
        simulated.simulated_load(board, "dense1", "tflite-micro", 1.0, "coma")
    with pytest.raises(UsageError, match=r"conv3dense1 takes 104\.6 ms .* period is 100\.0 ms"):
        simulated.simulated_load(board, "conv3dense1", "nnom+CMSIS-NN", 0.1, "stop")
    with pytest.raises(UsageError, match="has no timings: measure the board"):
        simulated.simulated_load(profile.load("device", "sparkfun-edge"), "kws", "TFLite Micro", 1.0, "deep-sleep")


def test_two_timings_that_fit_are_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "board.toml",
        DEVICE,
        CURRENT,
        CURRENT.replace("active", "idle").replace("8mA", "1uA"),
        TIMING.format(precision="int8"),
        TIMING.format(precision="float32"),
    )
    board = profile.load("device", path)
    with pytest.raises(UsageError, match=r"several timings that fit: .*int8, .*float32, .*Say which precision"):
        simulated.simulated_load(board, "dense1", "TFLite Micro", 1.0, "idle")
    load = simulated.simulated_load(board, "dense1", "TFLite Micro", 1.0, "idle", precision="int8")
    assert load.mean_a == pytest.approx(8e-3 * 20e-3 + 1e-6 * 980e-3)


def test_rig_without_a_board_to_simulate(tmp_path: Path) -> None:
    path = write(tmp_path / "bare.toml", 'name = "bare"\ndevice = "nrf52840"\nmeter = "ppk2"\ntrigger = "d0"\n')
    with pytest.raises(UsageError, match=r"'bare' has no simulated board"):
        simulated.rig_load(profile.load("rig", path))
