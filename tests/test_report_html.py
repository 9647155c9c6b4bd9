"""The HTML report: what it says, what it must not say, and that a browser draws it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import caveat
from joulemeter.capture import Basis
from joulemeter.caveat import Code
from joulemeter.report.figures import merged
from joulemeter.report.html import Waveform, render
from joulemeter.report.text import plain, typeset, visible
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


def test_headline_says_value_uncertainty_and_basis() -> None:
    page = Page(render(result(battery=BATTERY), rows(), envelope()))
    # 12.552 mJ, of which 2 * 10 % / sqrt(3) is 1.449 mJ
    for said in (
        "12.5 ± 1.4 mJ",
        "52.30 mW",
        "104.6 ms",
        "79.67",
        "417 days",
        "336 days to 486 days",
        "standard uncertainty, systematic 720 µJ",
        "20 of 22 found",
        "rejected: cut-window 2",
        "2026-11-20 20:41 UTC",
    ):
        assert said in page.text, said
    assert {attrs["data-basis"] for tag, attrs in page.tags if "data-basis" in attrs} == {
        "measured",
        "derived",
        "estimated",
    }
    assert page.count("div", id="waveform") == page.count("div", id="spread") == 1


def test_a_life_that_is_not_known_is_not_replaced_by_the_naive_one() -> None:
    told = dataclasses.replace(BATTERY, life_s={"p5": None, "p50": None, "p95": None}, cause="refused")
    text = Page(render(result(battery=told), rows(), None)).text
    # 5.1e7 s are 590.3 days
    assert "Battery life estimated unknown" in text
    assert "would say 590 days, which is no life" in text


def test_the_life_of_a_battery_is_drawn_and_tabled() -> None:
    curve = {"age_s": [0.0, 1e7, 2e7], "rail_min_v": [2.7, 2.5, 2.0], "rail_max_v": [3.2, 2.9, 2.8]}
    periods = ({"every_s": 60.0, "life_s": 5.1e7, "cause": "sag"}, {"every_s": 1.0, "life_s": None, "cause": "refused"})
    told = dataclasses.replace(BATTERY, curve=curve, periods=periods, cutoff_v=2.0, worst_grade="D")
    page = Page(render(result(battery=told), rows(), None))
    assert "590 days" in page.text and "refused" in page.text and "grade D" in page.text
    assert 'id="battery"' in render(result(battery=told), rows(), None)


def test_simulated_load_stands_beside_what_was_measured() -> None:
    told = result(simulated=True, truth={"energy_per_inference_j": ENERGY_J, "latency_s": ACTIVE_S})
    assert "simulated load, exact 12.5520 mJ" in Page(render(told, rows(), None)).text


def test_budget_bars_are_to_scale() -> None:
    page = Page(render(result(), rows(), None))
    widths = [float(re.findall(r"[\d.]+", attrs["style"] or "")[0]) for tag, attrs in page.tags if "style" in attrs]
    # shares of the gain term: 2 % over 10 %, 0.028 % and 0.004 % over 5.77 %
    assert widths == [100.0, 20.0, 0.5, 0.1]


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_is_said_everywhere_or_nowhere(simulated: bool) -> None:
    page = Page(render(result(simulated=simulated), rows(), envelope()))
    assert page.count("p", **{"class": "simulated"}) == simulated
    # tab title, banner, two captions
    assert page.text.count("SIMULATED") == (4 if simulated else 0)
    titles = [figure["layout"].get("title", {}).get("text") for figure in page.figures.values()]
    assert titles == [("<b>SIMULATED</b>" if simulated else None)] * 2


def test_unknown_energy_is_unknown_with_its_reason() -> None:
    page = Page(render(*without_energy()))
    for quantity in ("Energy per inference", "Mean power", "Inferences per joule"):
        assert f"{quantity} unavailable unknown {NO_VOLTAGE}" in page.text
    assert not re.search(r"(?<![\d.])0(\.0+)? [munµ]?[JW]\b", page.text)
    assert page.figures["waveform"]["layout"]["yaxis2"]["title"]["text"] == "Current (mA)"
    assert page.figures["spread"]["layout"]["yaxis"]["title"]["text"] == "Latency (ms)"
    assert f"so there is no budget. {NO_VOLTAGE}" in page.text


def test_nothing_at_all_is_said_in_sentences() -> None:
    told = render(Result(name="", created="", simulated=False).to_dict(), [], None)
    page = Page(told)
    assert page.text.count("unknown No reason was recorded.") == 4
    for sentence in (
        "The recording was not at hand when this report was written, so there is no waveform.",
        "No inference window was found, so there is nothing to distribute.",
        "The energy per inference is unknown, so there is no budget.",
        "None was raised.",
        "No provenance was recorded",
    ):
        assert sentence in page.text
    assert page.count("script") == page.count("figure") == 0
    assert len(told) < 50_000


def test_waveform_without_a_good_sample_is_said() -> None:
    nothing = np.full(10, np.nan)
    wave = Waveform(time_s=np.arange(10.0), low_w=nothing, high_w=nothing, mean_w=nothing)
    page = Page(render(result(), rows(1), wave))
    assert "Not one good sample was recorded, so there is no waveform." in page.text
    assert "There is only one window, and one value has no distribution." in page.text
    assert page.figures == {}


def test_single_window_has_no_scatter() -> None:
    once = Summary(median=ENERGY_J, u_systematic=GAIN * ENERGY_J, basis=Basis.MEASURED)
    page = Page(render(result(energy_per_inference_j=once, uncertainty=()), rows(1), envelope()))
    assert list(page.figures) == ["waveform"]
    assert "standard uncertainty, random unknown" in page.text
    assert "12.55 mJ" in page.text
    assert "Its uncertainty is unknown." in page.text


def test_ten_thousand_windows_stay_light() -> None:
    many = rows(10_000)
    whole = len(many) * LOAD.period_s
    # bins of 0.5 s: coarser than a window
    time_s = (np.arange(5000) + 0.5) * whole / 5000
    flat = np.full(5000, 0.1)
    lines = {"D0": [(row["start_s"], row["stop_s"]) for row in many]}
    told = render(
        result(), many, Waveform(time_s=time_s, low_w=flat * 0.03, high_w=flat * 1.5, mean_w=flat, lines=lines)
    )
    assert len(told.encode()) < 6_000_000
    page = Page(told)
    for figure in page.figures.values():
        assert "shapes" not in figure["layout"] or len(figure["layout"]["shapes"]) <= 2
        assert sum(len(trace["x"]) for trace in figure["data"]) < 50_000
    spread = page.figures["spread"]["data"]
    assert sum(spread[-1]["x"]) == 10_000
    assert page.figures["waveform"]["close_up"] is None
    assert "are shaded as one" in page.text
    assert "the first 200 of 10,000" in page.text
    assert sum(tag == "tr" for tag, _ in page.tags) == 1 + 200 + 1 + 4 + 3


HOSTILE = (
    "</script><script>document.body.dataset.hacked=1</script><!--<script>"
    '<img src=x onerror="document.body.dataset.hacked=1">\'"><b>bold</b>'
    '<a href="javascript:document.body.dataset.hacked=1">here</a><iframe src="https://example.org"></iframe>'
    "{{ 7*7 }}{% raw %}%{x}$\\alpha$</style></title>&lt;i&gt;"
)


def poisoned(text: str) -> str:
    """A page in which every string of every input is `text`, save the severities."""
    told = with_strings(result(battery=BATTERY), lambda _: text, keep=("severity",))
    told["device"] = {text: text, "nested": {text: [text, {text: text}]}}
    told["windows"]["rejected"] = {text: 3}
    bad = [row | {"label": text, "caveats": text} for row in rows()]
    wave = envelope()
    return render(told, bad, dataclasses.replace(wave, lines={text: wave.lines["D0"]}))


def test_hostile_text_stays_text() -> None:
    tame, hostile = Page(poisoned("x")), Page(poisoned(HOSTILE))
    # The same elements in the same order, whatever the text says.
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tame.tags]
    assert HOSTILE in hostile.seen
    for _, attrs in hostile.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "srcset", "action", "data")]
        assert attrs.get("href") in (None, "#caveats")


def test_hostile_text_reaches_plotly_without_tags() -> None:
    tame, hostile = Page(poisoned("x")).figures, Page(poisoned(HOSTILE)).figures
    ours = {text for text in strings(tame) if "<" in text and not text.startswith("window ")}
    # "window 3 x: 12.55 mJ<br>" is made here; the names within it are not.
    foreign = [text.removesuffix("<br>") for text in strings(hostile) if text not in ours]
    assert sum("&lt;/script&gt;" in text for text in foreign) > 20
    assert not [text for text in foreign if "<" in text or ">" in text]


def test_page_may_reach_nothing_and_run_only_its_own_scripts() -> None:
    page = Page(render(result(), rows(), envelope()))
    policy = next(
        attrs["content"] or "" for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    rules = {rule.split()[0]: set(rule.split()[1:]) for rule in policy.split(";")}
    scripts = [data for kind, data in page.code if kind == "script:"]
    # Not even our own "<br>" stands in the data as it is: nothing there can end the element.
    assert [kind for kind, data in page.code if kind == "script:application/json" and "<" not in data]
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()}'" for data in scripts}
    assert len(scripts) == 2
    assert rules["script-src"] == allowed
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == {"'none'"}
    assert rules["img-src"] == {"data:", "blob:"}
    styles = [data for kind, data in page.code if kind == "style:"]
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|https?:", styles[0])
    assert page.count("link") == page.count("img") == page.count("iframe") == 0


def test_holes_are_holes() -> None:
    """Bins without samples break the band and the mean; no line bridges them."""
    time_s = np.arange(6.0) + 0.5
    mean = np.array([1.0, 1.0, np.nan, 1.0, np.nan, 1.0])
    wave = Waveform(time_s=time_s, low_w=mean * 0.5, high_w=mean * 2, mean_w=mean)
    _, band, line = Page(render(result(), [], wave)).figures["waveform"]["data"]
    assert line["y"] == [1.0, 1.0, None, 1.0, None, 1.0]
    outlines = " ".join("/" if x is None else f"{x:g},{y:g}" for x, y in zip(band["x"], band["y"], strict=True))
    assert outlines == ("0,2 1,2 1,2 2,2 2,0.5 1,0.5 1,0.5 0,0.5 / 3,2 4,2 4,0.5 3,0.5 / 5,2 6,2 6,0.5 5,0.5 /")


def test_axis_is_in_the_unit_of_its_label() -> None:
    figure = Page(render(result(), rows(), envelope())).figures["waveform"]
    assert figure["layout"]["yaxis2"]["title"]["text"] == "Power (mW)"
    # 55 mA at 3.0 V is the highest step of the load.
    assert max(value for value in figure["data"][2]["y"] if value is not None) == pytest.approx(165, rel=0.02)


def test_lines_and_windows_lie_where_they_were() -> None:
    windows, _, _, d0, d1 = Page(render(result(), rows(), envelope())).figures["waveform"]["data"]
    assert windows["x"][0] == pytest.approx(LEAD_S)
    assert windows["x"][2] == pytest.approx(LEAD_S + ACTIVE_S)
    assert d0["x"][2] - d0["x"][0] == pytest.approx(ACTIVE_S, abs=2e-5)
    assert d1["x"][2] - d1["x"][0] == pytest.approx(0.03, abs=2e-5)


def test_windows_of_unknown_energy_are_left_out_and_counted() -> None:
    some = rows()
    some[3]["energy_j"] = some[9]["energy_j"] = None
    page = Page(render(result(), some, None))
    assert "Not known for 2 of 20 windows, which are left out." in page.text
    marks = page.figures["spread"]["data"][0]
    assert [index for index in range(20) if index not in marks["x"]] == [3, 9]


@pytest.mark.parametrize("energy_j", [0.0, ENERGY_J, -1e-9])
def test_equal_values_still_have_an_axis(energy_j: float) -> None:
    same = [row | {"energy_j": energy_j} for row in rows(5)]
    marks, bars = Page(render(result(), same, None)).figures["spread"]["data"]
    assert sum(bars["x"]) == 5
    assert bars["width"] > 0
    assert len(set(marks["y"])) == 1


def test_value_per_inference_is_shown_not_per_window() -> None:
    batched = [row | {"inferences": 10} for row in rows()]
    marks, _ = Page(render(result(), batched, None)).figures["spread"]["data"]
    assert np.median(marks["y"]) == pytest.approx(1.2552, rel=1e-3)


def test_caveats_come_worst_first_and_none_is_lost() -> None:
    told = result(
        caveats=(
            caveat.note(Code.SIMULATED, "A note."),
            caveat.doubt(Code.FEW_WINDOWS, "A doubt."),
            caveat.invalid(Code.CLIPPED, "The current hit the end of the range."),
        )
    )
    of_tomorrow = {"code": "of-tomorrow", "severity": "dire", "text": "From a later version.", "data": {}}
    told["caveats"] = [*told["caveats"], of_tomorrow]
    text = Page(render(told, [], None)).text
    order = [text.index(part) for part in ("hit the end", "A doubt.", "From a later version.", "A note.")]
    assert order == sorted(order)
    assert "Not valid as it stands. 1 of the caveats below says why." in text


def test_result_of_an_older_version_is_unknown_where_it_is_silent() -> None:
    told = result()
    for section, key in (("latency_s", "p99"), ("sync", "trigger"), ("efficiency", "edp_js")):
        del told[section][key]
    del told["net_reason"], told["battery"]
    text = Page(render(told, rows(), None)).text
    assert "99th percentile unknown" in text
    assert "trigger unknown" in text


def test_text_that_hides_is_made_visible() -> None:
    assert visible("a\u202eb\x00c\udcff d\n") == "a\ufffdb\ufffdc\ufffd d\n"
    assert plain("<b>&" + "x" * 100, 10) == "&lt;b&gt;&amp;xxxxx…"
    # A file name that is not UTF-8 arrives with surrogates; the page can be written all the same.
    assert b"caf\xef\xbf\xbd" in render(result(name="caf\udce9"), [], None).encode("utf-8")


def test_quantities_are_set_for_people() -> None:
    assert typeset("2.7 uJ") == "2.7\N{NO-BREAK SPACE}µJ"
    assert typeset("unknown") == "unknown"


def test_spans_are_joined_only_when_there_are_too_many() -> None:
    spans = [(float(start), start + 0.5) for start in (2, 0, 1)]
    assert merged(spans) == ([(0.0, 0.5), (1.0, 1.5), (2.0, 2.5)], 0.0)
    dense = [(k * 0.001, k * 0.001 + 0.0005) for k in range(5000)] + [(100.0, 101.0)]
    joined, close_s = merged(dense)
    assert close_s == pytest.approx(0.101)
    assert joined == [(0.0, pytest.approx(4.9995)), (100.0, 101.0)]


@pytest.mark.parametrize("page", ["plain", "hostile"])
def test_chromium_draws_it_without_a_complaint(page: str, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on PATH: the page is not drawn")
    file = tmp_path / "report.html"
    told = poisoned(HOSTILE) if page == "hostile" else render(result(simulated=True), rows(), envelope())
    file.write_text(told, encoding="utf-8")
    seen = subprocess.run(
        [  # noqa: S607
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=True,
    )
    drawn = Page(seen.stdout)
    body = next(attrs for tag, attrs in drawn.tags if tag == "body")
    assert (body.get("data-drawn"), body.get("data-errors"), body.get("data-hacked")) == ("2", "0", None)
    assert drawn.count("svg", **{"class": "main-svg"}) >= 2
    assert drawn.count("path") > 10
    assert drawn.count("img") == drawn.count("iframe") == 0
    assert [attrs["href"] for tag, attrs in drawn.tags if tag == "a" and attrs.get("href")] == []


def test_phases_have_a_table_and_hostile_names_stay_text() -> None:
    from joulemeter.report.html import render as draw

    spread = {"median": 1e-3}
    phase = {"windows": 3, "energy_j": spread, "duration_s": {"median": 2e-3}, "per_inference": 1.0}
    page = draw({"name": "x", "phases": {"pre<script>alert(1)</script>": phase}}, [], None)
    assert "<h2>Phases</h2>" in page
    assert "1.000 mJ" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<script>alert(1)" not in page
    assert "<h2>Phases</h2>" not in draw({"name": "x"}, [], None)
