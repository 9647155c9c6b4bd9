"""joulemeter check"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

if TYPE_CHECKING:
    from joulemeter.physics.rules import Measured
    from joulemeter.result import Result

app = common.app("Hold a result to a baseline and to limits, for CI.")
DEFAULT_REGRESSION = "3%"
# The median of the windows and that of the result are one number, written twice.
SAME = 1e-6


@app.command()
def check(
    result: Annotated[Path, typer.Argument(help="A run directory, or its result.json.")],
    baseline: Annotated[Path | None, typer.Option(metavar="RESULT", help="An earlier one to hold it against.")] = None,
    max_regression: Annotated[
        str | None,
        typer.Option(
            metavar="3%", help=f"How far energy per inference may rise over the baseline ({DEFAULT_REGRESSION})."
        ),
    ] = None,
    max_energy: Annotated[str | None, typer.Option(metavar="2.5mJ", help="Per inference.")] = None,
    max_net_energy: Annotated[str | None, typer.Option(metavar="2mJ", help="Per inference, above idle.")] = None,
    max_latency: Annotated[str | None, typer.Option(metavar="20ms", help="Per inference, the median.")] = None,
    max_power: Annotated[str | None, typer.Option(metavar="5mW", help="On average over the recording.")] = None,
    between_runs: Annotated[
        str | None,
        typer.Option(metavar="0.3%", help="How far runs of one kernel scatter beyond their windows (a deviation)."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What is not resolved fails too.")] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary here.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Print GitHub annotations too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Hold a result to a baseline and to limits; exit code 1 when a rule fails.

    A rise fails when it is no scatter and the limit is not excluded, both at 95 %. What is unknown fails.
    """
    from joulemeter.cli import checktext
    from joulemeter.physics import rules

    if json and github:
        raise typer.BadParameter("--json prints nothing else; leave out --github.")
    if baseline is not None and max_regression is None:
        max_regression = DEFAULT_REGRESSION
    given = {
        "max-energy": max_energy,
        "max-net-energy": max_net_energy,
        "max-latency": max_latency,
        "max-power": max_power,
    }
    asked = rules.Rules(
        max_regression=_share(max_regression) if max_regression else None,
        limits={
            name: units.parse_positive(text, rules.LIMITS[name][1]) for name, text in given.items() if text is not None
        },
        between_runs=_share(between_runs) if between_runs else 0.0,
        strict=strict,
    )
    found = rules.check(read(result), None if baseline is None else read(baseline), asked)
    if junit is not None:
        _write(junit, checktext.junit(found))
    if markdown is not None:
        _write(markdown, checktext.markdown(found).encode())
    if json:
        from msgspec.json import encode
        from msgspec.json import format as indented

        emit(indented(encode(checktext.plain(found)), indent=2).decode())
    elif github:
        emit(f"{checktext.inert(checktext.render(found))}\n{checktext.github(found)}")
    else:
        emit(checktext.render(found))
    if not found.passed:
        raise typer.Exit(1)


def _share(text: str) -> float:
    """A ratio; a bare 3 is not 300 %."""
    from joulemeter.errors import UsageError

    share = units.parse_positive(text, "1")
    if share >= 1 and "%" not in text:
        raise UsageError(f"{text!r} would be {share:.0%}.", f"Write {text.strip()}% if that is what is meant.")
    return share


def read(path: Path) -> Measured:
    """A run directory or its result.json, with the windows where windows.csv is beside it. Raises UsageError."""
    from joulemeter import store
    from joulemeter.errors import DataError, UsageError
    from joulemeter.physics.rules import Measured

    file = path / "result.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UsageError(f"{path} holds no result.json.", f"Make it with `joulemeter analyze {path}`.")
    try:
        result = store.read_result(file)
    except DataError as error:
        # Nothing was lost here: it is the wrong file.
        raise UsageError(error.what, error.remedy) from error
    return Measured(result=result, windows_j=used_windows(file.with_name("windows.csv"), result))


def used_windows(path: Path, result: Result) -> tuple[float, ...] | None:
    """Energies per inference, J, of the windows of `result` in windows.csv; None where the file is of something else.

    The file also has rows of phases and of windows that were rejected. What is left has to be as many as the result
    used, with its median.
    """
    import csv
    from statistics import median

    wanted = result.energy_per_inference_j.median
    if wanted is None or not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                float(row["energy_j"]) / int(row["inferences"])
                for row in csv.DictReader(file)
                if row["label"] not in result.phases
                and float(row["missing_s"]) == 0
                and float(row["start_s"]) >= 0
                and row["energy_j"]
            ]
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, csv.Error):
        return None
    # One that goes on beyond the recording comes last.
    for kept in (rows, rows[:-1]):
        if kept and len(kept) == result.windows.used and abs(median(kept) - wanted) <= SAME * abs(wanted):
            return tuple(kept)
    return None


def _write(path: Path, content: bytes) -> None:
    from joulemeter.errors import AccessError

    try:
        path.write_bytes(content)
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror or error}).", "Choose another place.") from error
