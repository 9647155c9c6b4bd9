"""The HTML report: what it says, and what it must not say."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re

import numpy as np
import pytest
from report_pages import (
    ACTIVE_S,
    BATTERY,
    ENERGY_J,
    GAIN,
    HOSTILE,
    LEAD_S,
    LOAD,
    NO_VOLTAGE,
    Page,
    envelope,
    poisoned,
    result,
    rows,
    strings,
    without_energy,
)

from joulemeter import caveat
from joulemeter.capture import Basis
from joulemeter.caveat import Code
from joulemeter.report.figures import merged
from joulemeter.report.html import Waveform, render
from joulemeter.report.text import plain, typeset, visible
from joulemeter.result import Result, Summary


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


def test_hostile_text_stays_text() -> None:
    tame, hostile = Page(poisoned("x")), Page(poisoned(HOSTILE))
    # The same elements in the same order, whatever the text says.
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tame.tags]
    assert HOSTILE in hostile.seen
    for _, attrs in hostile.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "srcset", "action", "data")]
        assert attrs.get("href") in (None, "#caveats")


def test_hostile_text_reaches_plotly_without_tags() -> None:
    foreign = [text for text in strings(Page(poisoned(HOSTILE)).figures) if "script" in text]
    # Line breaks and bold names are made here; nothing else may be left.
    bare = [re.sub("</?b>|<br>", "", text) for text in foreign]
    assert sum("&lt;/script&gt;" in text for text in bare) > 40
    assert not [text for text in bare if "<" in text or ">" in text]


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


def test_a_drift_is_drawn_and_named() -> None:
    rise = 0.3e-3
    drifting = [row | {"energy_j": ENERGY_J + rise * (row["index"] / 19 - 0.5)} for row in rows()]
    told = result(caveats=(caveat.doubt(Code.DRIFT, "The windows drift by 300 uJ.", total=rise),))
    page = Page(render(told, drifting, None))
    _, line, _ = page.figures["spread"]["data"]
    assert line["x"] == [0, 19]
    assert line["y"][1] - line["y"][0] == pytest.approx(0.3)  # mJ
    assert "Dashed: the drift." in page.text
    # beside the picture and among the caveats
    assert page.text.count("The windows drift by 300 uJ.") == 2
    assert "Dashed" not in Page(render(result(), rows(), None)).text


def test_phases_are_lanes_and_no_inferences() -> None:
    spread = {"median": 1e-3}
    phase = {"windows": 3, "energy_j": spread, "duration_s": spread, "per_inference": 1.0}
    told = result()
    told["phases"] = {"pre": phase}
    short = [row | {"label": "pre", "stop_s": row["start_s"] + 0.03, "energy_j": 1e-6} for row in rows(3)]
    page = Page(render(told, [*rows(), *short], envelope()))
    assert len(page.figures["spread"]["data"][0]["x"]) == 20
    figure = page.figures["waveform"]
    windows, *_, lane = figure["data"]
    assert len(windows["x"]) == 5 * 20
    assert [text.strip("\N{NO-BREAK SPACE}") for text in figure["layout"]["yaxis3"]["ticktext"]] == [
        "D0",
        "D1",
        "phase pre",
    ]
    assert lane["x"][2] - lane["x"][0] == pytest.approx(0.03)


def test_provenance_tells_how_to_do_it_again() -> None:
    page = Page(render(result(), rows(), None, command=["/opt/venv/bin/joulemeter", "report", "a run", "-o", "r.html"]))
    assert "measured by joulemeter measure --meter ppk2 --name 'keyword spotting, DS-CNN small'" in page.text
    assert "this page by joulemeter report 'a run' -o r.html" in page.text
    assert "/opt/venv" not in page.text


def test_one_of_several_meters_is_named() -> None:
    wave = dataclasses.replace(envelope(), name="ppk2-2")
    assert "Drawn is ppk2-2, one of several meters." in Page(render(result(), rows(), wave)).text
    assert "several meters" not in Page(render(result(), rows(), envelope())).text


def test_phases_have_a_table_and_hostile_names_stay_text() -> None:
    from joulemeter.report.html import render as draw

    spread = {"median": 1e-3}
    phase = {"windows": 3, "energy_j": spread, "duration_s": {"median": 2e-3}, "per_inference": 1.0}
    page = draw({"name": "x", "phases": {"pre<script>alert(1)</script>": phase}}, [], None)
    assert "<h2>Phases</h2>" in page
    assert "1.000 mJ" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "<script>alert(1)" not in page
    assert "<h2>Phases</h2>" not in draw({"name": "x"}, [], None)
