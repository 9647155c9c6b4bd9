"""Results published by others: whole, in SI units, with sources, and checked against themselves."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from joulemeter import literature
from joulemeter.capture import Basis
from joulemeter.errors import DataError, UsageError
from joulemeter.literature import Row, Table, rows, select, statements

DATA = Path(__file__).parent.parent / "results" / "published"


def one(*patterns: str, **fields: object) -> Row:
    """The single row that the patterns match and whose fields are these."""
    found = [row for row in select(*patterns) if all(getattr(row, name) == value for name, value in fields.items())]
    assert len(found) == 1, [row.name for row in found]
    return found[0]


def test_every_table_is_whole() -> None:
    assert Counter(row.table for row in rows()) == {
        "mlperf_tiny": 163,
        "inference_energy": 245,
        # 22 lines in the slides, 16 of them with a second time for a batch of 32.
        "zhaw_latency": 38,
        # 14 lines, two of which tell of two systems at once.
        "detection_rates": 16,
    }
    assert len(statements()) == 33


def test_every_row_has_a_source_and_nothing_is_measured() -> None:
    for row in rows():
        assert len(row.source) > 10, row.name
        assert row.basis in (Basis.PUBLISHED, Basis.DERIVED), row.name
    assert all(len(statement.source) > 10 for statement in statements())


def test_names_tell_rows_apart() -> None:
    assert len({row.name for row in rows()}) == len(rows())


def test_only_the_known_contradiction_is_found() -> None:
    # AmbiqAI/neuralSPOT prints 159.257 uJ, 10.249 ms and 9.346 mW for one run: 15.5 mW would fit.
    (row,) = literature.doubtful()
    assert row.device.startswith("Ambiq EVB") and row.latency_s == 10.249e-3 and row.power_w == 9.346e-3
    assert row.agreement == pytest.approx(159.257 / (10.249 * 9.346), rel=1e-3)
    assert row.doubt is not None and row.name in row.doubt
    assert row not in select("*ambiq evb*")
    assert row in select("*ambiq evb*", doubtful=True)


def test_most_energies_can_be_checked_and_agree() -> None:
    checked = [row for row in rows() if row.agreement is not None]
    # All of MLPerf Tiny, and every row of the literature that states energy, power and a time or a rate.
    assert sum(row.table == "mlperf_tiny" for row in checked) == 163
    assert sum(row.table == "inference_energy" for row in checked) == 158
    assert all(abs(row.energy_j / (row.power_w * row.time_s) - 1) < 0.08 for row in checked if not row.doubt)  # type: ignore[operator]


def test_a_published_rate_is_the_reciprocal_of_the_latency_of_one_at_a_time() -> None:
    alone = [row for row in rows() if row.batch == 1 and row.rate_hz and row.latency_s]
    assert len(alone) == 10
    # Raspberry Pi 400: 1.6 tokens/s; the Mac mini's latency is printed with four digits.
    assert all(row.latency_s * row.rate_hz == pytest.approx(1, rel=2e-3) for row in alone)  # type: ignore[operator]


# Figures as their sources print them: microjoules, milliwatts, volts.
MLPERF_TINY = [
    ("mlperf_tiny/v0.5/reference/Nucleo-L4R5ZI/kws", 7373.704, 40.838503, 1.8),
    ("mlperf_tiny/v0.7/syntiant/syntiant_9120_0v9_30mhz/kws", 35.286, None, 1.8),
    ("mlperf_tiny/v0.7/STMicroelectronics/NUCLEO-H7A3ZI-Q/ic", 11200.203, None, 3.0),
    ("mlperf_tiny/v1.0/syntiant/syntiant_9120_1v1_98mhz/vww", 97.164, 23.433557, 1.8),
]


@pytest.mark.parametrize(("name", "energy_uj", "power_mw", "supply_v"), MLPERF_TINY)
def test_mlperf_tiny_rows_are_as_printed(name: str, energy_uj: float, power_mw: float | None, supply_v: float) -> None:
    row = one(name)
    assert row.energy_j == pytest.approx(energy_uj * 1e-6, rel=1e-12)
    assert power_mw is None or row.power_w == pytest.approx(power_mw * 1e-3, rel=1e-12)
    assert row.supply_v == supply_v
    assert row.per == "inference" and row.reviewed_by == "MLPerf"


def test_a_stream_is_not_an_inference() -> None:
    streams = select("sww", table="mlperf_tiny")
    assert len(streams) == 9 and {row.per for row in streams} == {"run"}
    # The rules: one stream of 1200 s. The lowest power published for it is 0.5067 mW.
    assert all(row.latency_s == pytest.approx(1200, rel=0.01) for row in streams)
    assert min(row.power_w for row in streams if row.power_w) == pytest.approx(0.5067e-3, rel=1e-3)


def test_runs_submitted_again_are_marked() -> None:
    again = [row for row in rows() if row.repeats]
    # Six runs of one submitter, unchanged in three later rounds.
    assert len(again) == 18 and {row.source.split(":")[0][-4:] for row in again} == {"v1.1", "v1.2", "v1.3"}
    first = {(row.device, row.benchmark, row.energy_j) for row in rows() if "/v1.0/syntiant/" in row.name}
    assert {(row.device, row.benchmark, row.energy_j) for row in again} <= first


# Seconds and joules as their sources print them, or by arithmetic on what they print.
ENERGIES = [
    (("Raspberry Pi 4 B (4 GB, fan off)",), {}, 0.5902, 3.443, 5.834),
    (("Jetson AGX Xavier (MaxQ)", "BERT-Large"), {"scenario": "offline"}, None, 17.498 / 48.584, 17.498),
    (("Hailo-8 (M.2*", "YOLOv5s 640x640"), {"power_w": 1.73}, 9.14e-3, 1.73 / 122.6, 1.73),
    # 0.154 mWh per frame at 12.34 frames/s.
    (("Jetson Nano", "YOLOv5n"), {}, 1 / 12.34, 0.154 * 3.6, 0.154 * 3.6 * 12.34),
    # 102.7 J per request of 486 tokens.
    (("A100 SXM4", "Llama 3.1 8B"), {"batch": 32}, 33.82e-3, 102.7 / 486, None),
    # 3905 tokens/s at 1073.705 W.
    (("2x NVIDIA H100", "Qwen 3 32B"), {}, 29.66e-3, 1073.705 / 3905, 1073.705),
    # 0.31 mWh per request above the idle board.
    (("Raspberry Pi 3", "SSD MobileNet v1"), {"per": "request"}, 0.427, 0.31 * 3.6, None),
    # 300 uA at an assumed 3.3 V, once a second.
    (("Arduino Nano 33 BLE Sense",), {}, 0.062, 300e-6 * 3.3, None),
    (("MAX78000",), {"accuracy": 0.963}, None, 0.251e-3, None),
    (("Apollo510 EVB (low power)",), {}, 20.495e-3, 160.1e-6, 7.813e-3),
]


@pytest.mark.parametrize(("patterns", "fields", "latency_s", "energy_j", "power_w"), ENERGIES)
def test_energies_are_those_of_the_sources(
    patterns: tuple[str, ...],
    fields: dict[str, object],
    latency_s: float | None,
    energy_j: float,
    power_w: float | None,
) -> None:
    row = one("inference_energy/*", *patterns, **fields)
    # Four digits are kept.
    assert row.energy_j == pytest.approx(energy_j, rel=1e-3)
    assert row.latency_s == (None if latency_s is None else pytest.approx(latency_s, rel=1e-3))
    assert row.power_w == (None if power_w is None else pytest.approx(power_w, rel=1e-3))


# Rated power of the whole board (of the GPU alone for the K620) times the published median: millijoules.
BOUNDS = [
    ("Jetson Nano", 10.0, (0.32, 5.64, 49.16)),
    ("Jetson TX2", 15.0, (0.24, 6.06, 54.0)),
    ("Jetson Xavier", 30.0, (0.30, 7.80, 66.15)),
    ("Quadro K620", 45.0, (0.27, 8.19, 54.0)),
]


@pytest.mark.parametrize(("device", "rated_w", "bounds_mj"), BOUNDS)
def test_rated_power_gives_a_bound_and_never_an_energy(
    device: str, rated_w: float, bounds_mj: tuple[float, ...]
) -> None:
    for model, bound_mj in zip(("Dense1", "Conv3Dense1", "MobileNet"), bounds_mj, strict=True):
        row = one("zhaw_latency/*", device, runtime="TensorFlow Lite", model=model, batch=1, precision="float32")
        assert row.power_max_w == rated_w and row.basis is Basis.DERIVED
        assert row.energy_max_j == pytest.approx(bound_mj * 1e-3, rel=1e-9)
        assert row.energy_j is None and row.power_w is None


def test_peak_power_gives_a_bound_and_never_an_energy() -> None:
    # geerlingguy/ollama-benchmark prints the peak at the wall and tokens per second.
    printed = {(13.0, 1.2), (13.9, 4.61), (11.9, 4.88), (6, 1.6), (13, 5.55), (156, 48.47), (26.4, 9.06), (30.1, 41.31)}
    found = [row for row in rows() if "ollama-benchmark" in row.source]
    assert {(row.power_max_w, row.rate_hz) for row in found} == printed | {(244.0, 90.92)}
    assert {round(row.energy_max_j or 0, 3) for row in found} >= {10.833, 3.015, 3.75, 0.729}
    assert all(row.energy_j is None and row.power_w is None and row.basis is Basis.DERIVED for row in found)


def test_no_row_has_both_an_energy_and_a_bound() -> None:
    bounded = [row for row in rows() if row.power_max_w is not None]
    assert len(bounded) == 32 + 9 + 3
    assert all(row.energy_j is None and row.basis is Basis.DERIVED and row.energy_max_j for row in bounded)


def test_a_batch_has_a_time_for_each_but_no_latency() -> None:
    row = one("zhaw_latency/*", "Jetson Xavier", model="Conv3Dense1", batch=32)
    assert row.latency_s is None and row.time_s == pytest.approx(259e-6)


def test_microcontrollers_are_as_in_the_slides() -> None:
    times = {(row.model, row.runtime): row.latency_s for row in select("STM32F4DISCOVERY", table="zhaw_latency")}
    assert times == {
        ("Dense1", "TensorFlow Lite Micro"): 1.12e-3,
        ("Dense1", "ST Cube.AI"): 3.95e-3,
        ("Dense1", "nnom + CMSIS-NN"): 207e-6,
        ("Conv3Dense1", "TensorFlow Lite Micro"): 331.6e-3,
        ("Conv3Dense1", "ST Cube.AI"): 300.34e-3,
        ("Conv3Dense1", "nnom + CMSIS-NN"): 104.6e-3,
    }
    assert one("STM32F4DISCOVERY", "nnom*", model="Dense1").firmware_bytes == 26_000


def test_rates_told_in_relation_are_derived() -> None:
    pi = {row.runtime: row for row in select("detection_rates/*", "Raspberry Pi 3 B+")}
    assert [pi[name].rate_hz for name in ("TensorFlow", "TensorFlow Lite", "Xnor AI2GO")] == [2, 4, 8]
    assert [row.basis for row in pi.values()] == [Basis.PUBLISHED, Basis.DERIVED, Basis.DERIVED]
    board = one("detection_rates/*", "Coral Dev Board")
    assert (board.rate_min_hz, board.rate_hz, board.rate_max_hz) == (50, None, 60)
    assert one("detection_rates/*", "Raspberry Pi 4 (USB 2)").rate_hz is None


def test_statements_agree_with_each_other() -> None:
    apollo = {row.quantity: row for row in statements() if "Apollo3" in row.subject}
    clock, active = apollo["current per clock"], apollo["active current"]
    # 6 to 10 uA/MHz at 48 MHz.
    assert clock.low and clock.high
    assert (clock.low * 48e6, clock.high * 48e6) == pytest.approx((active.low, active.high), rel=0.05)
    assert active.unit == "A" and active.approximate


def test_patterns() -> None:
    assert len(select("*kws*", table="mlperf_tiny")) == 42
    assert select("KWS") == select("*kws*")
    assert select("nucleo-u575zi-q", "vww") == select("*NUCLEO_U575ZI_Q*", "*vww*")
    assert {row.device_class for row in select("keyword spotting")} == {"mcu", "fpga", "accelerator"}
    assert len(select(table="mlperf_tiny")) == 163
    with pytest.raises(UsageError, match=r"matches 'jetsn nano'.*Jetson Nano"):
        select("jetsn nano")


# -- data that cannot be used ------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tables to spoil, in the place of the package's own."""
    for file in DATA.glob("*.csv"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    return tmp_path


BROKEN = [
    ("zhaw_latency", ",published,", ",measured,", r"zhaw_latency\.csv, line 2 .*'measured' as its basis"),
    ("zhaw_latency", "1120", "0", "line 2 .*'0' as its latency_us, which is not positive"),
    ("zhaw_latency", "1120", "fast", "line 2 .*'fast' as its latency_us, which is no number"),
    ("zhaw_latency", "latency_us", "latency_as", "line 2 .*'latency_as', which means nothing"),
    ("zhaw_latency", ",10,inference,derived", ",10,inference,published", "line 5 .*mixes a bound"),
    ("zhaw_latency", "STM32F4DISCOVERY", "", "line 2 .*has no device"),
    ("inference_energy", ",3443,inference,5834,,", ",3443,inference,5834,6000,", "line 2 .*mixes a bound"),
    ("inference_energy", ",sbc,", ",sbx,", "'sbx' as its device_class"),
    ("inference_energy", ",0.963,", ",96.3,", "accuracy above 1"),
    ("mlperf_tiny", "416.312", "", r"mlperf_tiny\.csv, line 2 .*energy_uj"),
    ("mlperf_tiny", "416.312,inference", "416.312,inference,inference", "more or fewer cells"),
    ("detection_rates", ",yes,", ",about,", "'about' as its approximate"),
]


@pytest.mark.parametrize(("table", "old", "new", "message"), BROKEN)
def test_a_broken_line_is_named(copy: Path, table: Table, old: str, new: str, message: str) -> None:
    file = copy / f"{table}.csv"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        rows.__wrapped__()


def test_a_line_without_its_source_is_named(copy: Path) -> None:
    file = copy / "detection_rates.csv"
    head, first, *rest = file.read_text(encoding="utf-8").splitlines()
    assert first.count('"') == 2
    before, _, after = first.split('"')
    file.write_text("\n".join((head, before + after, *rest)), encoding="utf-8")
    with pytest.raises(DataError, match=r"detection_rates\.csv, line 2 .*has no source"):
        rows.__wrapped__()


def test_a_line_that_stands_twice_is_named(copy: Path) -> None:
    file = copy / "detection_rates.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join((*lines, lines[1])), encoding="utf-8")
    with pytest.raises(DataError, match=r"Two published rows are named detection_rates/2019/Raspberry Pi 3 B\+"):
        rows.__wrapped__()


def test_a_slipped_unit_is_doubted(copy: Path) -> None:
    file = copy / "inference_energy.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(",3443,inference,5834,", ",3.443,inference,5834,", 1), encoding="utf-8")
    spoilt = [row for row in rows.__wrapped__() if row.doubt]
    assert {row.device for row in spoilt} == {
        "Raspberry Pi 4 B (4 GB, fan off)",
        "Ambiq EVB, platform not named (max performance)",
    }


def test_statements_need_units(copy: Path) -> None:
    file = copy / "statements.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(",A/Hz,", ",,", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"statements\.csv, line 15 .*without a unit"):
        statements.__wrapped__()
