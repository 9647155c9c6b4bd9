"""RAPL: which counters make a machine's energy, counters that turn over, and what stands in the way of reading them."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_meters import lines, loopback, plant, recorded, settings, slower, stream_of, survey, until_it_ends

import joulemeter as jm
from joulemeter.boardfiles import driver as boardfiles
from joulemeter.boardfiles.wire import Files
from joulemeter.capture import Header, Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import rapl
from joulemeter.instruments.rapl import channels, discovery, domains, driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import parse_load
from joulemeter.window import Window

posix_only = pytest.mark.skipif(os.name != "posix", reason="sysfs and pipes are not on this system")

# What Linux shows as the range: 2**32 - 1 units of 61.035 uJ (Intel) and of 15.258 uJ (AMD, Intel's server memory).
INTEL, FINE = 262_143_328_850, 65_532_610_987


def zone(place: str, name: str, energy_uj: int, range_uj: int = INTEL) -> dict[str, str | int]:
    folder = f"class/powercap/intel-rapl:{place}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": energy_uj, f"{folder}/max_energy_range_uj": range_uj}


MACHINES: dict[str, Mapping[str, str | int]] = {
    # An i7-8550U (powercap/powercap, issue 3), with the same package shown a second time by MMIO.
    "laptop": zone("0", "package-0", 5_000_000)
    | zone("0:0", "core", 3_000_000)
    | zone("0:1", "uncore", 100_000)
    | zone("0:2", "dram", 900_000)
    | zone("1", "psys", 9_000_000)
    | {
        "class/powercap/intel-rapl-mmio:0/name": "package-0",
        "class/powercap/intel-rapl-mmio:0/energy_uj": 5_000_000,
        "class/powercap/intel-rapl-mmio:0/max_energy_range_uj": INTEL,
        "class/powercap/intel-rapl/enabled": 1,
    },
    "two sockets": zone("0", "package-0", 1)
    | zone("0:0", "dram", 2, FINE)
    | zone("1", "package-1", 3)
    | zone("1:0", "dram", 4, FINE),
    "zen": zone("0", "package-0", 100_000_000, FINE) | zone("0:0", "core", 5_800_000, FINE),
    "dies": zone("0", "package-0-die-0", 1) | zone("1", "package-0-die-1", 2),
    "nothing": {"class/powercap/dtpm/enabled": 1},
}


def found(tmp_path: Path, machine: str) -> list[wire.Zone]:
    told: list[wire.Zone] = wire.zones(survey(plant(tmp_path, MACHINES[machine]), wire.PATTERNS))
    return told


# -- which counters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "domain", "names"),
    [
        ("laptop", "auto", ["package-0", "package-0/dram"]),
        ("laptop", "package", ["package-0"]),
        ("laptop", "dram", ["package-0/dram"]),
        ("laptop", "psys", ["psys"]),
        ("laptop", "core", ["package-0/core"]),
        ("laptop", "package-0+dram", ["package-0", "package-0/dram"]),
        ("laptop", "core+uncore", ["package-0/core", "package-0/uncore"]),
        ("two sockets", "auto", ["package-0", "package-1", "package-0/dram", "package-1/dram"]),
        ("two sockets", "package-1/dram", ["package-1/dram"]),
        ("zen", "auto", ["package-0"]),
        ("dies", "package", ["package-0-die-0", "package-0-die-1"]),
    ],
)
def test_what_is_counted(tmp_path: Path, machine: str, domain: str, names: list[str]) -> None:
    assert [each.name for each in domains.choose(found(tmp_path, machine), domain)] == names


@pytest.mark.parametrize(
    ("machine", "domain", "error", "says"),
    [
        ("nothing", "auto", NotFoundError, "That is normal in virtual machines"),
        ("zen", "dram", NotFoundError, "no dram counter"),
        ("zen", "psys", NotFoundError, "There are: package-0, package-0/core"),
        ("laptop", "gpu", NotFoundError, "no RAPL zone 'gpu'"),
        ("laptop", "package-0+core", UsageError, "count it twice"),
        ("zen", "core+package-0", UsageError, "package-0 already holds its core"),
        ("laptop", "psys+dram", UsageError, "psys already holds"),
        ("laptop", "core+core", UsageError, "named twice"),
        ("two sockets", "dram+package-0", NotFoundError, ""),
    ],
)
def test_what_cannot_be_counted(
    tmp_path: Path, machine: str, domain: str, error: type[JouleMeterError], says: str
) -> None:
    if machine == "two sockets":
        error, says = UsageError, "2 zones are called 'dram'"
    with pytest.raises(error, match=says):
        domains.choose(found(tmp_path, machine), domain)


def test_no_permission_comes_with_every_remedy() -> None:
    folder = "/sys/class/powercap/intel-rapl:0"
    texts = {f"{folder}/name": "package-0", f"{folder}/max_energy_range_uj": str(INTEL)}
    denied = wire.zones(Files(texts=texts, failures={f"{folder}/energy_uj": "EACCES"}))
    with pytest.raises(AccessError) as told:
        domains.choose(denied, "auto")
    assert told.value.what == f"No permission to read {folder}/energy_uj."
    remedy = told.value.remedy
    assert "sudo groupadd -f rapl; sudo usermod -aG rapl $USER" in remedy
    assert (
        f"printf 'z {folder}/energy_uj 0440 root rapl -\\n' | sudo tee /etc/tmpfiles.d/rapl.conf; "
        "sudo systemd-tmpfiles --create"
    ) in remedy
    attribute = "class/powercap/intel-rapl:0/energy_uj"
    assert (
        f"printf 'mode {attribute} = 0440\\nowner {attribute} = root:rapl\\n' | sudo tee -a /etc/sysfs.conf" in remedy
    )
    assert "rapl@ssh://root@HOST" in remedy
    broken = wire.zones(Files(texts=texts, failures={f"{folder}/energy_uj": "EIO"}))
    with pytest.raises(NotFoundError, match="EIO"):
        domains.choose(broken, "auto")


def test_discovery_shows_the_usual_total(tmp_path: Path) -> None:
    (one,) = discovery.discover("rapl", str(plant(tmp_path, MACHINES["laptop"])))
    assert one.problem is None and one.description.endswith(": package-0, package-0/dram")
    assert discovery.discover("rapl", str(tmp_path / "nowhere")) == []


@posix_only
def test_discovery_shows_what_stands_in_the_way() -> None:
    """Root may read everything, so the files are looked at as nobody."""
    with tempfile.TemporaryDirectory() as folder:
        root = plant(Path(folder), MACHINES["zen"])
        (root / "class/powercap/intel-rapl:0/energy_uj").chmod(0)
        root.chmod(0o755)
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)
        try:
            (one,) = discovery.discover("rapl", str(root))
            with pytest.raises(AccessError, match="No permission to read"):
                domains.choose(wire.zones(survey(root, wire.PATTERNS)), "auto")
        finally:
            os.seteuid(own)
    assert one.problem and "No permission" in one.problem and one.remedy and "groupadd" in one.remedy


# -- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "gain", "offset_w"),
    [
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", 0.05, 1.0),
        ("13th Gen Intel(R) Core(TM) i7-1360P", 0.05, 1.0),
        ("Intel(R) Core(TM) Ultra 7 155H", 0.05, 1.0),
        ("Intel(R) Core(TM) i9-10900K CPU @ 3.70GHz", 0.05, 5.0),
        ("Intel(R) Xeon(R) Platinum 8480+", 0.05, 5.0),
        ("Intel(R) Core(TM) i7-3770 CPU @ 3.40GHz", 0.10, 5.0),
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", 0.10, 5.0),
        ("Intel(R) Xeon(R) CPU E5-2690 v3 @ 2.60GHz", 0.05, 5.0),
        ("AMD Ryzen 9 7950X 16-Core Processor", 0.10, 5.0),
    ],
)
def test_what_a_package_may_be_wrong_by(tmp_path: Path, cpu: str, gain: float, offset_w: float) -> None:
    (package,) = domains.choose(found(tmp_path, "zen"), "package")
    (row,) = channels.energy([package], cpu).accuracy
    assert (row.gain.value, row.offset.value, row.verified) == (gain, offset_w, False)


def test_memory_in_a_sum_and_alone(tmp_path: Path) -> None:
    package, dram = domains.choose(found(tmp_path, "laptop"), "auto")
    (alone,) = channels.energy([dram], "i7-8550U").accuracy
    assert (alone.gain.standard, alone.offset.standard, alone.verified) == (0.17, 0.0, True)
    (both,) = channels.energy([package, dram], "i7-8550U").accuracy
    # A package's 5 % and 1 W, both rectangular, and the memory's 0.35 W.
    assert both.gain.standard == pytest.approx(0.05 / 3**0.5)
    assert both.offset.standard == pytest.approx((1 / 3 + 0.35**2) ** 0.5)
    psys = domains.choose(found(tmp_path, "laptop"), "psys")
    assert channels.energy(psys, "i7-8550U").accuracy == ()


# -- counters that turn over ------------------------------------------------------------------------------------------


def made_header(ranges_uj: list[int], interval_s: float = 1.0) -> Header:
    zones = [
        wire.Zone(place=str(k), label=f"package-{k}", parent=None, path=f"/{k}", range_uj=range_uj, failure=None)
        for k, range_uj in enumerate(ranges_uj)
    ]
    made = [channels.energy(zones, "Intel")]
    if len(zones) > 1:
        made += [channels.energy([each], "Intel", f"energy {each.name}") for each in zones]
    return slower(
        Header(
            instrument="rapl",
            model="by hand",
            wire=wire.FORMAT,
            rate_hz=1.0,
            word_bytes=40 + 88 * len(zones),
            channels=tuple(made),
            parameters={
                "sources": [["number", each.path] for each in zones],
                "first_ns": 1_000_000_000,
                "age_ns": 0,
                "ranges_uj": ranges_uj,
            },
        ),
        interval_s,
    )


def counters(ranges_uj: list[int], watts: list[float], before_uj: list[int], slots: list[int]) -> dict[int, list[str]]:
    """What counters show in slots of a second at constant power; they are 32 bits wide, so they turn over."""
    return {
        slot: [
            str((start + round(power * slot * 1e6)) % range_uj)
            for range_uj, power, start in zip(ranges_uj, watts, before_uj, strict=True)
        ]
        for slot in slots
    }


def decoded(header: Header, rounds: dict[int, list[str]]) -> Any:
    return rapl.decoder(header).feed(b"".join(lines(header, rounds)))


def test_a_sum_is_right_across_turns_of_its_parts() -> None:
    """100 W and 7 W for a minute; both counters turn over, at different times."""
    header = made_header([FINE, FINE])
    rounds = counters([FINE, FINE], [100.0, 7.0], [FINE - 2_500_000_000, FINE - 100_000_000], [*range(61)])
    (block,) = decoded(header, rounds)
    assert block.data["energy"] == pytest.approx([107.0 * second for second in range(61)], abs=1e-6)
    raw = block.data["energy package-0"]
    assert (np.diff(raw) < 0).sum() == 1 and raw[0] == pytest.approx(FINE / 1e6 - 2500)
    assert [channel.wrap for channel in header.channels] == [None, FINE / 1e6, FINE / 1e6]
    window = Window(start_ns=10_000_000_000, stop_ns=50_000_000_000, index=0)
    (whole,) = integrate(stream_of(header, [block]), [window])
    assert whole.energy_j == pytest.approx(107.0 * 40, rel=1e-9)


def test_a_hole_that_one_turn_can_explain_is_bridged() -> None:
    """65.5 kJ take 33 s at the 2 kW that no package draws: 20 s without readings hold one turn at the most."""
    header = made_header([FINE, FINE])
    slots = [0, 1, 2, 3, 23, 24, 25]
    blocks = decoded(header, counters([FINE, FINE], [100.0, 7.0], [FINE - 1_000_000_000, 0], slots))
    assert [block.lost_before for block in blocks] == [0, 19]
    total = np.concatenate([block.data["energy"] for block in blocks])
    assert total == pytest.approx([107.0 * slot for slot in slots], abs=1e-6)


@pytest.mark.parametrize(
    ("slots", "change"),
    [
        ([*range(10), *range(60, 70)], {}),  # so long that a turn may have gone unseen
        ([*range(20)], {12: ["5000000", "4711"]}),  # a counter that began anew: 60 kJ within a second otherwise
    ],
)
def test_a_sum_that_lost_count_says_so(slots: list[int], change: dict[int, list[str]]) -> None:
    header = made_header([FINE, FINE])
    rounds = counters([FINE, FINE], [100.0, 7.0], [10_000_000_000, 0], slots)
    for slot, texts in change.items():
        for later in range(slot, 20):
            rounds[later] = [str(int(text) + 100_000_000 * (later - slot)) for text in texts]
    blocks = decoded(header, rounds)
    stream = stream_of(header, blocks)
    assert (np.diff(stream.data["energy"]) < 0).sum() == 1
    last = slots[-1] * 1_000_000_000
    windows = [Window(start_ns=a, stop_ns=b, index=k) for k, (a, b) in enumerate([(0, last), (0, 5_000_000_000)])]
    lost, good = integrate(stream, windows)
    assert Code.COUNTER_RESET in lost.caveats
    assert Code.COUNTER_RESET not in good.caveats
    assert good.energy_j == pytest.approx(107.0 * 5, rel=1e-4)


def test_a_single_counter_is_left_as_it_is() -> None:
    """Its turns are added where windows are integrated."""
    header = made_header([FINE])
    rounds = counters([FINE], [100.0], [FINE - 1_000_000_000], [*range(31)])
    (block,) = decoded(header, rounds)
    assert (np.diff(block.data["energy"]) < 0).sum() == 1
    (whole,) = integrate(stream_of(header, [block]), [Window(start_ns=1_000_000_000, stop_ns=29_000_000_000, index=0)])
    assert whole.energy_j == pytest.approx(2800.0, rel=1e-6)


def test_a_saved_decoder_goes_on_counting() -> None:
    header = made_header([FINE, FINE])
    raw = b"".join(lines(header, counters([FINE, FINE], [100.0, 7.0], [FINE - 500_000_000, 9], [*range(20)])))
    first, second = rapl.decoder(header), rapl.decoder(header)
    blocks = first.feed(raw[:1300])
    second.restore(first.state())
    blocks += second.feed(raw[1300:])
    total = np.concatenate([block.data["energy"] for block in blocks])
    assert total == pytest.approx([107.0 * slot for slot in range(20)], abs=1e-6)


# -- the simulated processor ------------------------------------------------------------------------------------------


def simulated(load: str, faults: str = "", **changed: str) -> boardfiles.FilesDriver:
    link = loopback(rapl.simulate(parse_load(load), Options()), faults)
    made: boardfiles.FilesDriver = driver.driver_on(link, Options(), settings(rapl, **changed))
    return made


@pytest.mark.parametrize(("domain", "share"), [("auto", 1.0), ("package", 0.85), ("dram", 0.15), ("core", 0.6)])
def test_the_energy_of_windows_is_the_loads(domain: str, share: float) -> None:
    """48 W for 0.4 s, 12 W for 0.6 s; the package's counter turns over in the first second."""
    with simulated("4A/400ms,1A/600ms", domain=domain) as meter:
        header, blocks = recorded(meter, rapl, 4.3)
    assert header.simulated and header.channels[0].kind is Kind.CUMULATIVE
    assert header.channels[0].quantity is Quantity.ENERGY and header.channels[0].refresh_s == 1e-3
    names = [channel.name for channel in header.channels]
    assert names == (["energy", "energy package-0", "energy package-0/dram"] if domain == "auto" else ["energy"])
    # The load begins one interval of 10 ms before stream time 0.
    begins = [round((second - 0.01) * 1e9) for second in (1.0, 2.0, 3.0)]
    windows = [Window(start_ns=at, stop_ns=at + 400_000_000, index=k) for k, at in enumerate(begins)]
    for one in integrate(stream_of(header, blocks), windows):
        assert one.energy_j is not None and not one.caveats
        # An edge between two polls of 10 ms: half of one at the step of 36 W, at each end.
        assert abs(one.energy_j - 48.0 * 0.4 * share) <= 2 * 36.0 * share * 5e-3 + 1e-3
    whole = Window(start_ns=begins[0], stop_ns=begins[2], index=0)
    (one,) = integrate(stream_of(header, blocks), [whole])
    assert one.energy_j == pytest.approx((48.0 * 0.4 + 12.0 * 0.6) * 2 * share, rel=2e-3)


def test_the_whole_way_through(tmp_path: Path) -> None:
    """36 W at 12 V, whatever the windows are; the stated uncertainty covers it."""
    with jm.measure(meter="rapl", simulate=True, load="3A/1s", output=tmp_path / "runs") as m:
        for _ in range(4):
            with m.inference():
                time.sleep(0.25)
    energy, latency_s = m.result.energy_per_inference_j, m.result.latency_s.median
    assert m.result.simulated and latency_s is not None and energy.median is not None
    assert energy.expanded_k2 is not None
    assert abs(energy.median - 36.0 * latency_s) <= min(energy.expanded_k2, 0.01 * energy.median)
    # 5 W of the package and 0.35 W of the memory, over the window: what decides here.
    assert energy.expanded_k2 == pytest.approx(
        2 * latency_s * (25 / 3 + 0.35**2 + (36 * 0.05) ** 2 / 3) ** 0.5, rel=0.1
    )


@pytest.mark.parametrize("faults", ["stall@0.5s", "unplug@0.5s", "noise@0.5s", "drop@0.5s:500"])
def test_faults(faults: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boardfiles, "STOP_S", 0.2)
    with simulated("1A/1s", faults) as meter:
        header = meter.start()
        raw, gone = until_it_ends(meter)
    assert gone == faults.startswith("unplug")
    blocks = rapl.decoder(header).feed(raw[: 50 * header.word_bytes])
    assert 30 <= sum(len(block) for block in blocks) <= 50
    assert bool(sum(block.lost_before for block in blocks)) == faults.startswith("drop")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=5.0), "cannot supply one"),
        (Options(declared_v=12.0), "needs no voltage"),
        (Options(settings={"interval": "5s"}), "polled every"),
        (Options(settings={"domain": "package+core"}), "There are"),
    ],
)
def test_impossible_wishes(tmp_path: Path, options: Options, says: str) -> None:
    root = str(plant(tmp_path, MACHINES["laptop"]))
    wishes = Options(
        supply_v=options.supply_v, declared_v=options.declared_v, settings={"root": root, **options.settings}
    )
    with pytest.raises(JouleMeterError, match=says):
        rapl.open("", wishes)


# -- a real agent -----------------------------------------------------------------------------------------------------


class Counting(threading.Thread):
    """Writes into a tree what counters would show at so many watts each."""

    def __init__(self, root: Path, watts: Mapping[str, float]) -> None:
        super().__init__(daemon=True)
        self._files = {root / f"class/powercap/intel-rapl:{place}/energy_uj": power for place, power in watts.items()}
        self._over = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(0.001):
            for file, power in self._files.items():
                handle = os.open(file, os.O_WRONLY)
                os.pwrite(handle, b"%012d\n" % round((100 + (time.monotonic() - began) * power) * 1e6), 0)
                os.close(handle)

    def __enter__(self) -> Counting:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


@posix_only
def test_counters_of_this_host_are_read_and_added(tmp_path: Path) -> None:
    root = plant(tmp_path / "sys", MACHINES["laptop"])
    with Counting(root, {"0": 20.0, "0:2": 3.0}):
        time.sleep(0.05)
        with jm.measure(meter="rapl", settings={"root": str(root)}, output=tmp_path / "runs") as m:
            for _ in range(4):
                with m.inference():
                    time.sleep(0.3)
    assert not m.result.simulated
    assert m.result.power_w.inference == pytest.approx(23.0, rel=0.05)
    assert any("nothing else of the machine" in caveat.text for caveat in m.result.caveats)


@posix_only
def test_a_counter_that_stands_still_is_told(tmp_path: Path) -> None:
    root = plant(tmp_path, MACHINES["laptop"])
    options = Options(settings={"root": str(root)})
    with rapl.open("", options) as meter, pytest.raises(DataError, match="stands still"):
        meter.start()
    with Counting(root, {"0": 20.0}):
        time.sleep(0.05)
        with rapl.open("", options) as meter:
            header = meter.start()
    (told,) = [caveat for caveat in header.caveats if caveat.data.get("zones")]
    assert told.data["zones"] == ["package-0/dram"] and told.severity == "doubt"


@posix_only
def test_one_core_of_an_amd_is_doubted(tmp_path: Path) -> None:
    files = survey(plant(tmp_path, MACHINES["zen"]), wire.PATTERNS)
    for cpu, doubted in (("AMD Ryzen 7 5800X", True), ("Intel(R) Core(TM) i7-8550U", False)):
        plan = driver.plan(boardfiles.Survey(hello={"cpu": cpu}, files=files, root=str(tmp_path)), "core")
        assert any("one physical core" in caveat.text for caveat in plan.caveats) == doubted


@posix_only
def test_the_platform_is_doubted(tmp_path: Path) -> None:
    files = survey(plant(tmp_path, MACHINES["laptop"]), wire.PATTERNS)
    plan = driver.plan(boardfiles.Survey(hello={"cpu": None}, files=files, root=str(tmp_path)), "psys")
    assert [caveat.severity for caveat in plan.caveats] == ["doubt"] and "psys" in plan.caveats[0].text
