"""The report in a real browser: it zooms, complains of nothing, asks the network for nothing, and obeys nobody."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import recording, stream
from report_pages import BATTERY, HOSTILE, Page, envelope, poisoned, result, rows, standing

from joulemeter.capture import ArrayStream
from joulemeter.physics.analyze import Request
from joulemeter.report.build import write
from joulemeter.report.html import render
from joulemeter.synthetic import Load, Step

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on PATH: no page is drawn")

# Awaits what the page does by itself, then lets `act` act and keeps what it found on <body>.
PROBE = """
addEventListener("DOMContentLoaded", async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const plot = document.getElementById("waveform");
  const until = async (ready) => { for (let i = 0; i < 200 && !ready(); i++) await wait(25); };
  const press = async (view) => { document.querySelector(`[data-view=${view}]`).click(); await wait(50); };
  const told = [];
  const tell = (name) => {
    const { data, layout } = plot, [from, to] = layout.xaxis.range;
    const seen = data[2].x.filter((x) => x >= from && x <= to);
    told.push({ name, range: layout.xaxis.range.slice(), power: layout.yaxis2.range.slice(), type: layout.yaxis2.type,
      steps: seen.length, names: [...new Set(data[2].customdata.map((one) => one[2]))].filter(Boolean),
      windows: data[0].x.length / 5, high: Math.max(...data[2].y.filter((y) => y !== null)) });
  };
  try { ACT } catch (error) { console.error(error); told.push(String(error)); }
  document.body.dataset.told = JSON.stringify(told);
});
"""


def chromium(folder: Path, *arguments: str) -> str:
    return subprocess.run(
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
            f"--user-data-dir={folder / 'profile'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=True,
    ).stdout


def opened(folder: Path, page: str, *arguments: str) -> tuple[Page, dict[str, str | None]]:
    """A page as the browser leaves it, and the attributes of its body."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    drawn = Page(chromium(folder, "--virtual-time-budget=20000", *arguments, "--dump-dom", file.as_uri()))
    return drawn, next(attrs for tag, attrs in drawn.tags if tag == "body")


def with_script(page: str, script: str) -> str:
    """The page with one script more, which its policy is told of."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policed = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return policed.replace("</body>", f"<script>{script}</script></body>")


def probed(folder: Path, page: str, act: str, *arguments: str) -> list[dict[str, Any]]:
    """What `act` told in the page, which had nothing to complain of."""
    _, body = opened(folder, with_script(page, PROBE.replace("ACT", act)), "--window-size=1280,1000", *arguments)
    assert body.get("data-errors") == "0"
    return list(json.loads(body["data-told"] or "null"))


# -- an hour -----------------------------------------------------------------------------------------------------------

HOUR_S, RATE_HZ, PERIOD_S = 3600.0, 1000.0, 10.0
PULSE = (Step(duration_s=0.05, current_a=0.05, lines=0b1), Step(duration_s=0.15, current_a=0.02, lines=0b1))
HOUR = Load(steps=(*PULSE, Step(duration_s=PERIOD_S - 0.2, current_a=2e-6)), lead_s=1.0, lead_a=2e-6)


def hour() -> ArrayStream:
    """An hour at 1 kHz: an inference of 0.2 s each ten seconds, and one spike of a millisecond among them."""
    count = round(HOUR_S * RATE_HZ)
    current = HOUR.mean_current_a(0, count, RATE_HZ)
    current *= np.random.default_rng(3).normal(1.0, 0.01, count)
    current[2_000_000] = 0.2
    return stream(current, HOUR.lines(0, count, RATE_HZ), RATE_HZ)


@pytest.fixture(scope="module")
def hour_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("hour") / "hour.html"
    write(recording(hour()), Request(), file)
    assert file.stat().st_size < 10_000_000
    return file.read_text("utf-8")


def test_an_hour_shows_more_the_closer_one_looks(hour_page: str, tmp_path: Path) -> None:
    act = """
        await until(() => document.body.dataset.detailed);
        tell("whole");
        await press("close"); tell("close");
        await press("after"); tell("first"); await press("after"); tell("second"); await press("before"); tell("back");
        await Plotly.relayout(plot, { "xaxis.range": [1999, 2001] }); await wait(50); tell("spike");
        await press("log"); tell("log"); await press("log");
        await press("whole"); tell("end");
        const click = (point) => document.getElementById("spread").emit("plotly_click", { points: [point] });
        click({ customdata: [101, 101.2] }); tell("clicked");
        click({}); tell("a bar");
    """
    told = {one["name"]: one for one in probed(tmp_path, hour_page, act)}
    whole, close = told["whole"], told["close"]
    # The spike of 0.2 A at 3 V is 600 mW: no step hides it. The mean of its step is far below.
    assert whole["power"][1] > 600 > 300 > whole["high"]
    assert whole["range"] == pytest.approx([0, HOUR_S], abs=1)
    assert whole["windows"] == 360
    # Three windows, ten seconds apart, and each within its neighbourhood in far finer steps.
    assert close["range"][0] <= 1.0 and close["range"][1] >= 21.2
    assert close["steps"] > 1500
    # The first step of an inference is 150 mW for 50 ms; from afar it is lost in the mean of a step of 0.9 s.
    assert whole["high"] < 40 < 145 < close["high"] < 156
    for name, start in (("first", 1.0), ("second", 11.0), ("back", 1.0)):
        assert told[name]["range"] == pytest.approx([start - 0.06, start + 0.26], abs=1e-6)
    assert told["first"]["steps"] > 300
    assert len(told["first"]["names"]) == 1
    assert re.fullmatch(r"window 0: 1\d\.\d+\smJ<br>", told["first"]["names"][0])
    assert told["spike"]["power"][1] > 600
    assert 100 < told["spike"]["steps"] < whole["steps"]
    assert (told["log"]["type"], told["end"]["type"]) == ("log", "linear")
    assert told["log"]["range"] == pytest.approx([1999, 2001])
    assert told["end"]["range"] == whole["range"]
    assert told["end"]["steps"] == whole["steps"]
    assert told["clicked"]["range"] == told["a bar"]["range"] == pytest.approx([101 - 0.06, 101.2 + 0.06])
    assert told["clicked"]["names"][0].startswith("window 10:")


DRAG = """
    await until(() => document.body.dataset.detailed);
    plot.scrollIntoView({ block: "center" });
    await wait(100);
    const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
    const at = (share) => ({ clientX: area.left + share * area.width, clientY: area.top + area.height / 2 });
    const mouse = (kind, where, target) => target.dispatchEvent(
      new MouseEvent(kind, { ...where, bubbles: true, cancelable: true, buttons: 1, view: window }));
    const drag = async (from, to) => {
      mouse("mousedown", at(from), plot.querySelector(".nsewdrag"));
      await wait(20);
      for (const share of [from + (to - from) / 3, to]) { mouse("mousemove", at(share), document); await wait(20); }
      mouse("mouseup", at(to), document);
      await wait(400);
    };
    tell("whole");
    await drag(0.25, 0.5); tell("zoomed");
    const tool = (name) =>
      plot.querySelector(`.modebar-btn[data-val="${name}"]`).dispatchEvent(new MouseEvent("click", { bubbles: true }));
    tool("pan");
    await wait(50);
    await drag(0.5, 0.25); tell("panned");
    tool("reset");
    await wait(100); tell("end");
"""


def test_a_mouse_zooms_and_pans(hour_page: str, tmp_path: Path) -> None:
    told = {one["name"]: one for one in probed(tmp_path, hour_page, DRAG)}
    assert told["zoomed"]["range"] == pytest.approx([HOUR_S / 4, HOUR_S / 2], rel=0.01)
    assert told["panned"]["range"] == pytest.approx([HOUR_S * 5 / 16, HOUR_S * 9 / 16], rel=0.01)
    assert told["zoomed"]["steps"] > told["whole"]["steps"] / 4 * 1.5
    assert told["panned"]["steps"] == pytest.approx(told["zoomed"]["steps"], rel=0.1)
    assert told["end"]["range"] == pytest.approx(told["whole"]["range"])


# -- hostile text and the network --------------------------------------------------------------------------------------


class _Listening(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Server", (_Listening,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def luring(address: str) -> str:
    """Everything by which a text might bring a page to ask for something, or to hide what it is."""
    return (
        f"{HOSTILE}<img src={address}/img><link rel=stylesheet href={address}/css><script src={address}/js></script>"
        f"<iframe src={address}/frame></iframe><style>@import '{address}/import'</style>"
        f'<svg onload="fetch(\'{address}/fetch\')"><a href="{address}/a">a</a> [a]({address}/md) url({address}/url)'
        "\x1b[31m\x1b]8;;javascript:1\x07\u202egnp.exe\u2066{% include 'x' %}${7*7}"
    )


def test_hostile_text_is_inert_and_nothing_is_asked_of_the_network(
    listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = listener
    drawn, body = opened(tmp_path, poisoned(luring(address)))
    assert (body.get("data-errors"), body.get("data-hacked")) == ("0", None)
    assert int(body.get("data-drawn") or 0) == 4
    assert drawn.count("img") == drawn.count("iframe") == drawn.count("link") == 0
    assert [attrs["href"] for tag, attrs in drawn.tags if tag == "a" and attrs.get("href")] == []
    assert not {"\x1b", "\u202e", "\u2066", "\x07"} & set(drawn.seen)
    assert asked == []
    # As markup it does ask, so that silence above says something.
    opened(tmp_path, f"<!doctype html><body>{luring(address).removeprefix(HOSTILE)}</body>")
    assert {"/img", "/js", "/fetch"} <= set(asked)


# -- paper, dark, phone ------------------------------------------------------------------------------------------------


def test_it_prints(tmp_path: Path) -> None:
    file, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    file.write_text(render(result(battery=BATTERY, simulated=True), rows(), envelope()), encoding="utf-8")
    chromium(tmp_path, "--virtual-time-budget=5000", f"--print-to-pdf={paper}", file.as_uri())
    printed = paper.read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6


def test_plots_follow_light_and_dark(tmp_path: Path) -> None:
    act = """
        told.push({ figure: getComputedStyle(document.querySelector("figure")).backgroundColor,
          plot: getComputedStyle(plot.querySelector(".main-svg")).backgroundColor });
    """
    (told,) = probed(tmp_path, render(result(), rows(), envelope()), act, "--blink-settings=preferredColorScheme=0")
    assert told["figure"] == told["plot"] == "rgb(23, 28, 34)"


def test_a_phone_scrolls_in_one_direction(tmp_path: Path) -> None:
    """Headless windows are never narrower than 500 px, frames are."""
    width = 360
    report = """addEventListener("load", () => setTimeout(() => parent.postMessage(JSON.stringify({
        within: innerWidth, page: document.documentElement.scrollWidth }), "*"), 500));"""
    long = "x" * 300
    wave = dataclasses.replace(envelope(), lines={long: []})
    inner = tmp_path / "inner.html"
    told = render(
        result(name=long, battery=BATTERY), rows(), wave, table=standing(long).table, command=["joulemeter", long]
    )
    inner.write_text(with_script(told, report), encoding="utf-8")
    outer = (
        f'<!doctype html><body><iframe src="inner.html" style="width:{width}px;height:900px;border:0"></iframe>'
        '<script>addEventListener("message", ({ data }) => { document.body.dataset.told = data; });</script></body>'
    )
    _, body = opened(tmp_path, outer)
    seen = json.loads(body["data-told"] or "null")
    assert seen["within"] == width
    assert seen["page"] <= width
