"""joulemeter compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

if TYPE_CHECKING:
    from joulemeter.comparison import Table
    from joulemeter.comparison.published import Choice
    from joulemeter.lifetime import Question

app = common.app("Results beside each other and beside published ones: efficiency, ranks, ratios, plots.")


@app.command()
def compare(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RESULT", help="Run directories, result.json, zips of runs, foreign recordings."),
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE[:WORD...]", help="Rows that others published: mlperf-tiny:ic, inference:jetson, zhaw, all."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="What ranks: energy, latency, edp, power, life, or any column.")
    ] = "inferences_per_joule",
    together: Annotated[bool, typer.Option("--together", help="One table, also of different models.")] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]MODEL", help="What ran, where a result does not say: ic, or 'board*=ic'."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SCOPE", help="What the meter saw: mcu_supply, board_dc, system_ac, ..."),
    ] = None,
    one_meter: Annotated[
        bool, typer.Option("--one-meter", help="One meter measured all, though no serial number says so.")
    ] = False,
    cell: Annotated[str | None, typer.Option(metavar="CR2032", help="How long would this battery last?")] = None,
    every: common.Every = None,
    sleep_current: Annotated[
        str | None, typer.Option(metavar="1.2uA", help="For --cell: what is drawn in between.")
    ] = None,
    cutoff: Annotated[str | None, typer.Option(metavar="1.8V", help="For --cell: the lowest voltage.")] = None,
    voltage: Annotated[
        str | None, typer.Option(metavar="3.0V", help="For --cell: what was measured at, where a result does not say.")
    ] = None,
    trigger: Annotated[str | None, typer.Option(help="Of recordings, instead of the one recorded.")] = None,
    inferences_per_window: common.PerWindow = None,
    convention: Annotated[str | None, typer.Option(help="native or eembc, of EEMBC recordings.")] = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="So many published rows a table on the terminal.")] = 20,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Everything, in SI units.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Tables for a README or an issue.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bars, and energy against latency: .png, .svg or .pdf.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="The same to zoom into; opens offline.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Compare results with each other and with what others published.

    Measured, simulated and published rows stand apart everywhere. A difference that is not resolved shares a rank.
    """
    from joulemeter.cli import compareread, comparetext
    from joulemeter.comparison import choose, of_row
    from joulemeter.comparison import compare as compared
    from joulemeter.comparison.amounts import named
    from joulemeter.comparison.published import there
    from joulemeter.errors import UsageError
    from joulemeter.physics.analyze import Request

    quantity = named(sort)
    if not results and not published:
        raise UsageError("There is nothing to compare.", f"Give results, or --published. {there()}")
    if plot is not None:
        from joulemeter.report.compareplot import FORMATS

        if plot.suffix.lower() not in FORMATS:
            raise UsageError(f"{plot} is no picture that can be drawn.", f"Choose one of: {', '.join(FORMATS)}.")
    asked = compareread.Asked(
        request=Request(
            trigger=trigger, inferences_per_window=inferences_per_window, convention=convention or "native"
        ),
        again=bool(trigger or inferences_per_window or convention),
        question=_question(cell, every, sleep_current, cutoff, voltage),
        models=compareread.said(model, "MODEL"),
        scopes=compareread.scopes(scope),
        one_meter=one_meter,
    )
    choice = choose(published or [])
    with common.progress(quiet=quiet) as progress:
        entries = []
        for number, path in enumerate(results or [], start=1):
            progress(f"reading {comparetext.inert(path)} ({number} of {len(results or [])})")
            entries.append(compareread.entry(path, asked))
        table = compared(entries, [of_row(row) for row in choice.rows], sort=quantity, together=together)
        left_out = _left_out(choice)
        if csv is not None:
            _write(csv, comparetext.as_csv(table))
        if markdown is not None:
            _write(markdown, comparetext.as_markdown(table, left_out))
        if html is not None:
            from joulemeter.report.comparehtml import render

            progress(f"drawing {comparetext.inert(html)}")
            _write(html, render(table, left_out))
        if plot is not None:
            progress(f"drawing {comparetext.inert(plot)}")
            _draw(table, plot, progress)
    emit(comparetext.as_json(table, left_out) if json else comparetext.render(table, left_out, rows, cell))


def _question(
    cell: str | None, every: str | None, sleep_current: str | None, cutoff: str | None, voltage: str | None
) -> Question | None:
    """What is asked about a battery. Raises UsageError for a cell that there is not."""
    from joulemeter import cells
    from joulemeter.errors import UsageError
    from joulemeter.lifetime import Question

    if cell is None:
        if every or sleep_current or cutoff or voltage:
            raise UsageError(
                "--every, --sleep-current, --cutoff and --voltage are about a battery.", "Give --cell too."
            )
        return None
    cells.cell(cell)
    return Question(
        cell=cell,
        every_s=units.parse_positive(every, "s") if every else None,
        rest_a=units.parse(sleep_current, "A") if sleep_current else None,
        cutoff_v=units.parse_positive(cutoff, "V") if cutoff else None,
        voltage_v=units.parse_positive(voltage, "V") if voltage else None,
    )


def _left_out(choice: Choice) -> list[str]:
    """What of the chosen rows is not shown, as sentences."""
    told = (
        (choice.repeated, "submitted again unchanged, and shown once"),
        (choice.doubtful, "left out because their own energy, power and time contradict each other"),
        (choice.empty, "left out because they state neither energy nor time"),
    )
    return [f"{count} published row{'s' if count > 1 else ''}: {why}." for count, why in told if count]


def _draw(table: Table, path: Path, progress: common.Progress) -> None:
    from joulemeter.report.compareplot import draw

    omitted = draw(table, path)
    if omitted:
        progress.say(f"{path.name} has room for some tables only; {omitted} more are not drawn. Narrow --published.")


def _write(path: Path, content: str) -> None:
    from joulemeter.errors import AccessError

    try:
        # A lone surrogate, as file names may have, is no text.
        path.write_text(content, encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror or error}).", "Choose another place.") from error
