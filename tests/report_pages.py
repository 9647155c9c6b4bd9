"""Results, windows and waveforms for tests of the report, and what a page holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np

from joulemeter import caveat
from joulemeter.capture import Basis
from joulemeter.caveat import Code
from joulemeter.report.detail import Steps
from joulemeter.report.html import Waveform, render
from joulemeter.report.standing import Standing, among, asked
from joulemeter.result import Battery, Efficiency, Power, Result, Summary, Sync, Term, Windows
from joulemeter.synthetic import Load, Step

SUPPLY_V = 3.0
ACTIVE_S, ACTIVE_A, IDLE_S, IDLE_A, LEAD_S = 0.1046, 0.04, 0.1454, 0.0012, 0.2
ENERGY_J = ACTIVE_S * ACTIVE_A * SUPPLY_V  # 12.552 mJ
GAIN = 0.10 / 3**0.5  # a PPK2 is given as within 10 %, rectangular

LOAD = Load(
    steps=(
        Step(duration_s=0.03, current_a=0.055, lines=0b11),
        Step(duration_s=ACTIVE_S - 0.03, current_a=(ACTIVE_S * ACTIVE_A - 0.03 * 0.055) / (ACTIVE_S - 0.03), lines=0b1),
        Step(duration_s=IDLE_S, current_a=IDLE_A),
    ),
    lead_s=LEAD_S,
    lead_a=IDLE_A,
)


def rows(count: int = 20) -> list[dict[str, Any]]:
    """Windows of the load, with 0.1 % of scatter."""
    scatter = np.random.default_rng(7).normal(1.0, 1e-3, count)
    found = []
    for index in range(count):
        start_s = LEAD_S + index * LOAD.period_s
        found.append(
            {
                "index": index,
                "label": "",
                "start_s": start_s,
                "stop_s": start_s + ACTIVE_S,
                "duration_s": ACTIVE_S + 1e-5 * (index % 3),
                "inferences": 1,
                "energy_j": ENERGY_J * scatter[index],
                "charge_c": ENERGY_J / SUPPLY_V * scatter[index],
                "mean_power_w": ENERGY_J / ACTIVE_S * scatter[index],
                "peak_power_w": 0.165,
                "missing_s": 0.0,
                "caveats": "",
            }
        )
    return found


def envelope(bins: int = 2000, per_bin: int = 250, rate_hz: float = 100_000.0) -> Waveform:
    """The load as 100 kS/s with some noise would show it, and a hole of a few bins."""
    count = bins * per_bin
    power = LOAD.mean_current_a(0, count, rate_hz) * SUPPLY_V
    power *= np.random.default_rng(1).normal(1.0, 0.03, count)
    power[per_bin * 900 : per_bin * 905] = np.nan
    cut = power.reshape(bins, per_bin)
    lines = {}
    for bit, name in enumerate(("D0", "D1")):
        high = np.diff(np.concatenate([[0], LOAD.lines(0, count, rate_hz) >> bit & 1, [0]]).astype(int))
        edges = zip(np.flatnonzero(high == 1) / rate_hz, np.flatnonzero(high == -1) / rate_hz, strict=True)
        lines[name] = [(float(start), float(stop)) for start, stop in edges]
    return Waveform(
        time_s=(np.arange(bins, dtype=np.float64) + 0.5) * per_bin / rate_hz,
        low_w=cut.min(axis=1),
        high_w=cut.max(axis=1),
        mean_w=cut.mean(axis=1),
        lines=lines,
    )


def summary(values: Sequence[float], u_systematic: float | None = None) -> Summary:
    array = np.array(values)
    u_random = float(array.std(ddof=1)) * 1.2533 / len(array) ** 0.5
    return Summary(
        median=float(np.median(array)),
        mean=float(array.mean()),
        stdev=float(array.std(ddof=1)),
        min=float(array.min()),
        max=float(array.max()),
        p5=float(np.percentile(array, 5)),
        p95=float(np.percentile(array, 95)),
        p99=float(np.percentile(array, 99)),
        ci95=(float(np.median(array)) - 2 * u_random, float(np.median(array)) + 2 * u_random),
        ci95_method="order statistics",
        u_random=u_random,
        u_systematic=u_systematic,
        expanded_k2=None if u_systematic is None else 2 * (u_random**2 + u_systematic**2) ** 0.5,
        basis=Basis.MEASURED,
    )


def term(name: str, share: float, source: str, *, random: bool = False) -> Term:
    return Term(
        term=name,
        type="A" if random else "B",
        distribution="normal" if random else "rectangular",
        value=share,
        unit="1",
        sensitivity=ENERGY_J,
        contribution_j=share * ENERGY_J,
        random=random,
        source=source,
    )


def result(**changes: Any) -> dict[str, Any]:
    """A believable result of twenty windows, with any part replaced."""
    windows = rows()
    parts: dict[str, Any] = {
        "name": "keyword spotting, DS-CNN small",
        "created": "2026-11-20T20:41:26+00:00",
        "simulated": False,
        "device": {"name": "nRF5340 DK", "core": "Cortex-M33", "clock_hz": 128e6},
        "workload": {
            "runtime": "tflite-micro",
            "version": "2.16",
            "delegate": None,
            "model": "kws_ref_model.tflite",
            "model_sha256": "9f3a" * 16,
            "batch": 1,
        },
        "instrument": {
            "key": "ppk2",
            "serial": "F1C0FFEE",
            "firmware": "1.2.4",
            "rate_hz": 1e5,
            "voltage_basis": "declared",
        },
        "windows": Windows(found=22, used=20, rejected={"cut-window": 2}, inferences_per_window=1),
        "energy_per_inference_j": summary([row["energy_j"] for row in windows], GAIN * ENERGY_J),
        "net_energy_per_inference_j": summary([row["energy_j"] - 0.000377 for row in windows], GAIN * ENERGY_J),
        "latency_s": summary([row["duration_s"] for row in windows], 1e-6),
        "power_w": Power(mean=0.0523, idle=0.0036, peak=0.1823, inference=0.12, basis=Basis.MEASURED),
        "charge_per_inference_c": ENERGY_J / SUPPLY_V,
        "efficiency": Efficiency(
            inferences_per_joule=1 / ENERGY_J,
            inferences_per_second_per_watt=9.56 / 0.12,
            inferences_per_second=1 / ACTIVE_S,
            edp_js=ENERGY_J * ACTIVE_S,
        ),
        "sync": Sync(grade="in-band", trigger="d0", offset_s=0.0, residual_s=2.9e-6, matched=40, missed=0, extra=1),
        "uncertainty": (
            term("gain of the instrument", GAIN, "Nordic Semiconductor, PPK2 user guide"),
            term("supply voltage", 0.02 / 3**0.5, "declared 3.0 V ± 2 %"),
            term("scatter of the windows", 2.8e-4, "standard error of the median, 20 windows", random=True),
            term("edges of a window", 4.0e-5, "one sample interval at each edge", random=True),
        ),
        "caveats": (
            caveat.doubt(
                Code.VOLTAGE_DECLARED,
                "The supply voltage was declared as 3.0 V, not measured. Energy is wrong by as much as the voltage is. "
                "Measure it at the board.",
            ),
            caveat.note(Code.CUT_WINDOW, "Two windows were cut by the ends of the recording and left out."),
        ),
        "provenance": {
            "versions": {"joulemeter": "0.1.0", "numpy": "2.3.4", "python": "3.11.2"},
            "command": ["joulemeter", "measure", "--meter", "ppk2", "--name", "keyword spotting, DS-CNN small"],
            "host": {"system": "Linux 6.12", "cpu": "x86_64"},
            "streams": [{"name": "ppk2", "rate_hz": 1e5, "samples": 500000}],
        },
    }
    return Result(**parts | changes).to_dict()


BATTERY = Battery(
    cell="CR2032",
    life_s={"p5": 2.9e7, "p50": 3.6e7, "p95": 4.2e7},
    cause="voltage under load falls below 1.8 V",
    naive_life_s=5.1e7,
    inferences=3.6e6,
    every_s=10.0,
    mean_current_a=15.9e-6,
    capacity_c=810.0,
    basis=Basis.ESTIMATED,
)


class Page(HTMLParser):
    """The elements of a page in order, the text a reader sees, and the scripts and styles it does not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[tuple[str, str]] = []
        self.seen = ""
        self._inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None
        self.seen += " "

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.code.append((self._inside + ":" + (self.tags[-1][1].get("type") or ""), data))
        else:
            self.seen += data

    @property
    def text(self) -> str:
        return " ".join(self.seen.split())

    @property
    def figures(self) -> dict[str, Any]:
        held = [data for kind, data in self.code if kind == "script:application/json"]
        return dict(json.loads(held[0])) if held else {}

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= attrs.items() for name, attrs in self.tags)


def with_strings(value: Any, change: Callable[[str], str], keep: tuple[str, ...] = ()) -> Any:
    """`value` with every string in it changed, keys too, but for what stands under the keys to keep."""
    if isinstance(value, dict):
        return {k: v if k in keep else with_strings(v, change, keep) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_strings(inner, change, keep) for inner in value]
    return change(value) if isinstance(value, str) else value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


NO_VOLTAGE = "The meter measures current and no voltage is known, so energy cannot be had. Give --assume-voltage."


def without_energy() -> tuple[dict[str, Any], list[dict[str, Any]], Waveform]:
    unknown = {"energy_j": None, "mean_power_w": None, "peak_power_w": None}
    told = result(
        energy_per_inference_j=Summary(reason=NO_VOLTAGE),
        net_energy_per_inference_j=None,
        net_reason=NO_VOLTAGE,
        power_w=Power(),
        efficiency=Efficiency(inferences_per_second=1 / ACTIVE_S),
        uncertainty=(),
        caveats=(caveat.doubt(Code.ENERGY_UNAVAILABLE, NO_VOLTAGE),),
    )
    return told, [row | unknown for row in rows()], dataclasses.replace(envelope(), unit="A")


HOSTILE = (
    "</script><script>document.body.dataset.hacked=1</script><!--<script>"
    '<img src=x onerror="document.body.dataset.hacked=1">\'"><b>bold</b>'
    '<a href="javascript:document.body.dataset.hacked=1">here</a><iframe src="https://example.org"></iframe>'
    "{{ 7*7 }}{% raw %}%{x}$\\alpha$</style></title>&lt;i&gt;"
)


def steps() -> Steps:
    """The envelope as a closer look has it."""
    drawn = envelope()
    step_s = float(drawn.time_s[1] - drawn.time_s[0])
    return Steps(start_s=0.0, step_s=step_s, low=drawn.low_w, high=drawn.high_w, mean=drawn.mean_w)


def standing(name: str, **changes: Any) -> Standing:
    """A result of that name among the published rows of image classification."""
    one = Result(name=name, created="", simulated=False, energy_per_inference_j=summary([1e-3, 1.1e-3]), **changes)
    found = among(one, asked(["mlperf-tiny:ic"], model="ic"))
    assert found is not None
    return found


def poisoned(text: str) -> str:
    """A page in which every string of every input is `text`, save the severities."""
    told = with_strings(result(battery=BATTERY), lambda _: text, keep=("severity",))
    told["device"] = {text: text, "nested": {text: [text, {text: text}]}}
    told["windows"]["rejected"] = {text: 3}
    spread = {"median": 1e-3}
    told["phases"] = {f"phase {text}": {"windows": 3, "energy_j": spread, "duration_s": spread, "per_inference": 1.0}}
    bad = [row | {"label": text, "caveats": text} for row in rows()]
    bad += [row | {"label": f"phase {text}"} for row in rows(3)]
    wave = dataclasses.replace(envelope(), details=(steps(),))
    told_of = standing(text)
    return render(
        told,
        bad,
        dataclasses.replace(wave, lines={text: wave.lines["D0"]}),
        table=told_of.table,
        left_out=[text],
        command=["joulemeter", "report", text],
    )
