"""joulemeter watch"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

if TYPE_CHECKING:
    from joulemeter.live import View, Watched

app = common.app("Live power in the terminal; nothing is recorded.")

# Often enough for the eye, seldom enough to read the digits.
REDRAW_S = 0.2
LINE_S = 1.0
POLL_S = 0.05


@app.command()
def watch(
    meter: common.MeterNames,
    duration: Annotated[str | None, typer.Option(metavar="1min", help="Stop after so long.")] = None,
    span: Annotated[str, typer.Option(metavar="10s", help="How much time the strip shows.")] = "10s",
    supply: common.Supply = None,
    assume_voltage: common.AssumeVoltage = None,
    simulate: common.Simulate = False,
    load: common.LoadText = None,
    faults: common.Faults = None,
    setting: common.Setting = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON each second.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Live power in the terminal; nothing is recorded. Ctrl-C ends it.

    Where the output is no terminal: one line of text each second.
    """
    from joulemeter import live
    from joulemeter.errors import UsageError
    from joulemeter.plan import Plan

    meters = common.meters(meter, supply, assume_voltage, setting, simulate=simulate, quiet=quiet)
    if not meters:
        raise UsageError("There is nothing to watch without a meter.", "Name one with --meter.")
    limit_s = units.parse_positive(duration, "s") if duration else None
    span_s = units.parse_positive(span, "s")
    plan = Plan(meters=meters, output=Path(), name="watch", simulate=simulate, load=load, faults=faults)
    with common.progress(quiet=quiet) as progress:
        progress(f"starting {', '.join(one.key for one in meters)}")
        with live.watching(plan, span_s) as watched:
            progress.done()
            _watch(watched, limit_s, json=json)


def _watch(watched: tuple[Watched, ...], limit_s: float | None, *, json: bool) -> None:
    """Until a signal, the time, or an error of a meter; what was seen is summed up in any case."""
    terminal = not json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    stopped = _Stop()
    views: list[View] = []
    try:
        with stopped.on_signals():
            if terminal:
                _draw(watched, limit_s, stopped, views)
            else:
                _tell(watched, limit_s, stopped, views, json=json)
    except BrokenPipeError:
        # The reader has gone; what is still buffered must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        _sum_up(views, json=json)


class _Stop:
    """Asked for by a signal or a key; the loop looks at it, so that nothing is cut off in the middle."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        # The end of the terminal is one too: the board must not stay powered.
        names = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        before = [(number, signal.signal(number, self)) for number in names]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def _loop(
    watched: tuple[Watched, ...],
    limit_s: float | None,
    stopped: _Stop,
    views: list[View],
    every_s: float,
    show: Callable[[], object],
) -> None:
    """Poll the meters and show every `every_s`; `views` are the latest, also when a meter has ended it by an error."""
    began = time.monotonic()
    due = began + every_s

    def look() -> None:
        views[:] = [one.look() for one in watched]

    try:
        while not stopped.asked and (limit_s is None or time.monotonic() - began < limit_s):
            for one in watched:
                one.poll()
            now = time.monotonic()
            if now >= due:
                # A frame that came late does not hurry the ones after it.
                due += every_s * max(1, round((now - due) / every_s + 0.5))
                look()
                show()
            until = due if limit_s is None else min(due, began + limit_s)
            time.sleep(max(0.0, min(POLL_S, until - time.monotonic())))
    finally:
        look()


def _draw(watched: tuple[Watched, ...], limit_s: float | None, stopped: _Stop, views: list[View]) -> None:
    from joulemeter.cli import watchtext
    from joulemeter.cli.screen import Screen

    encoding = sys.stdout.encoding or "ascii"
    drawn = watchtext.glyphs(encoding)
    colour = not os.environ.get("NO_COLOR")
    with Screen() as screen:

        def show() -> None:
            width, height = screen.size()
            lines = watchtext.screen(views, width, height, drawn)
            screen.draw(watchtext.render(lines, width, encoding, colour=colour))
            if "q" in screen.typed():
                stopped()

        _loop(watched, limit_s, stopped, views, REDRAW_S, show)


def _tell(
    watched: tuple[Watched, ...], limit_s: float | None, stopped: _Stop, views: list[View], *, json: bool
) -> None:
    from json import dumps

    from joulemeter.cli import watchtext

    def show() -> None:
        for view in views:
            emit(
                dumps(watchtext.as_json(view, "reading"))
                if json
                else _clean(watchtext.plain(view, named=len(views) > 1))
            )
        sys.stdout.flush()

    _loop(watched, limit_s, stopped, views, LINE_S, show)


def _sum_up(views: list[View], *, json: bool) -> None:
    from json import dumps

    from joulemeter.cli import watchtext

    for view in views:
        if json:
            emit(dumps(watchtext.as_json(view, "summary")))
        else:
            emit("\n".join(common.wrap(_clean(watchtext.summary(view)), "  ")))


def _clean(text: str) -> str:
    """Without what only a terminal should be told."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
