"""What all commands share: options, progress on stderr, and errors with their exit codes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from joulemeter import units
from joulemeter.errors import IncompleteError, JouleMeterError

if TYPE_CHECKING:
    from joulemeter.physics.uncertainty import Conditions
    from joulemeter.plan import Meter

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for run directories.")]
MeterNames = Annotated[
    list[str],
    typer.Option(
        "--meter",
        "-m",
        metavar="KEY[@ADDRESS]",
        help="Such as ppk2, ppk2@/dev/ttyACM1, auto, or none; given twice, both are recorded together.",
    ),
]
Add = Annotated[
    bool, typer.Option("--add", help="The meters measure parts of one device: add them, instead of comparing.")
]
Serial = Annotated[
    str | None, typer.Option(metavar="PORT[,BAUD]", help="Record the text that the device prints there.")
]
Phases = Annotated[
    list[str] | None,
    typer.Option("--phase", metavar="NAME=TRIGGER", help="A part of the inference with a trigger of its own: pre=d1."),
]
MaxAlignment = Annotated[
    str | None,
    typer.Option(metavar="10%", help="Refuse a result whose window edges may be off by more than this share."),
]
Supply = Annotated[
    str | None, typer.Option(metavar="3.0V", help="The meter powers the board with this voltage; never a default.")
]
AssumeVoltage = Annotated[
    str | None, typer.Option(metavar="3.0V", help="The board's own supply, for meters that measure current only.")
]
Simulate = Annotated[bool, typer.Option("--simulate", help="Use the instrument's simulator; every face says so.")]
LoadText = Annotated[
    str | None,
    typer.Option(
        "--load",
        metavar="STEPS",
        help="What the simulated board draws: CURRENT/DURATION/LINES,... as 8mA/20ms/d0,1uA/1s.",
    ),
]
Faults = Annotated[
    str | None, typer.Option(metavar="KIND@TIME[:BYTES],...", help="What goes wrong on the simulated wire.")
]
Duration = Annotated[str | None, typer.Option(metavar="5s", help="Record for so long.")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the meter's own.")]
Debounce = Annotated[
    str | None,
    typer.Option(metavar="50us", help="Shortest pulse and pause that count; 0s switches the search for bounces off."),
]
PerWindow = Annotated[
    int | None, typer.Option("--inferences-per-window", metavar="N", min=1, help="How many each window holds.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="What the run is called.")]
NoteOption = Annotated[str | None, typer.Option("--note", help="Kept with the run.")]
Ambient = Annotated[str | None, typer.Option(metavar="25C", help="Temperature at the meter; widens its accuracy.")]
CalibratedAgo = Annotated[
    str | None, typer.Option(metavar="2y", help="How long ago the meter was calibrated; more than a year widens.")
]
Cell = Annotated[
    str | None, typer.Option(metavar="CR2032", help="Project the life of this battery too; see `joulemeter battery`.")
]
Every = Annotated[str | None, typer.Option(metavar="10s", help="For --cell: one inference each so long.")]
Decoupling = Annotated[
    str | None,
    typer.Option(metavar="10uF,1ohm", help="Capacitance at the board and resistance before it: what edges may move."),
]


def conditions(ambient: str | None, calibrated_ago: str | None, decoupling: str | None) -> Conditions | None:
    """What the user says of the circumstances; None if nothing."""
    if ambient is None and calibrated_ago is None and decoupling is None:
        return None
    from joulemeter.errors import UsageError
    from joulemeter.physics.uncertainty import Conditions

    farad, comma, ohm = (decoupling or "").partition(",")
    if decoupling and not comma:
        raise UsageError(
            f"{decoupling!r} lacks the resistance.", "Write --decoupling CAPACITANCE,RESISTANCE: 10uF,1ohm."
        )
    return Conditions(
        ambient_c=units.parse(ambient, "degC") if ambient else None,
        calibrated_years_ago=units.parse_positive(calibrated_ago, "s") / units.PLAIN["s"]["y"]
        if calibrated_ago
        else None,
        decoupling_f=units.parse_positive(farad, "F") if decoupling else None,
        source_ohm=units.parse_positive(ohm, "ohm") if decoupling else None,
    )


def battery(cell: str | None, every: str | None) -> dict[str, Any] | None:
    """What is asked about a battery; None if nothing."""
    if cell is None and every is None:
        return None
    from joulemeter.lifetime import asked

    return asked(cell, units.parse_positive(every, "s") if every else None)


def app(help_text: str) -> typer.Typer:
    """A typer application of one command, without markup and without its own handling of errors."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
    )


def run(application: typer.Typer, name: str, arguments: Sequence[str]) -> NoReturn:
    """Run one command; every error becomes a paragraph on stderr and an exit code."""
    # The end of a job or of a session is a Ctrl-C by other means: recordings end cleanly.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        application(args=list(arguments), prog_name=f"joulemeter {name}")
    except JouleMeterError as error:
        sys.exit(fail(error))
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            place = error.filename or "a file"
            sys.exit(fail(IncompleteError(f"Reading or writing {place} failed ({error.strerror or error}).")))
        # The reader of our output has gone; leave quietly, and keep the interpreter from trying once more.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        sys.exit(0)
    sys.exit(0)


def fail(error: JouleMeterError) -> int:
    """Print an error as a paragraph; its exit code."""
    sys.stderr.write("\n".join(wrap(f"joulemeter: {error}", "  ")) + "\n")
    return error.exit_code


def width() -> int:
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def wrap(text: str, indent: str = "", first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width() - 1,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


class Progress:
    """One line that is rewritten on a terminal; a line every few seconds elsewhere."""

    EVERY_S = 5.0

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic()
        self._open = False

    def __call__(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text[: width() - 1]}")
            sys.stderr.flush()
            self._open = True
        elif time.monotonic() - self._last >= self.EVERY_S:
            self._last = time.monotonic()
            sys.stderr.write(text + "\n")

    def say(self, text: str) -> None:
        """A line that stays; what comes from elsewhere cannot move the cursor."""
        if not self._quiet:
            self.done()
            sys.stderr.write("".join(letter if letter.isprintable() else " " for letter in text) + "\n")

    def done(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Progress that leaves a clean line whatever happens; Ctrl-C outside a recording is exit code 6."""
    shown = Progress(quiet=quiet)
    try:
        yield shown
    except KeyboardInterrupt:
        raise IncompleteError("Interrupted.", "What had been recorded, if anything, is kept.") from None
    finally:
        shown.done()


def emit(text: str) -> None:
    """Text for stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def settings(pairs: list[str] | None) -> dict[str, str]:
    """NAME=VALUE options as a mapping."""
    parsed = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE.")
        parsed[name] = value
    return parsed


def meters(
    names: Sequence[str],
    supply: str | None,
    assume_voltage: str | None,
    pairs: list[str] | None,
    *,
    trigger: str | None = None,
    runs_here: bool = False,
    simulate: bool = False,
    quiet: bool = False,
) -> tuple[Meter, ...]:
    """The meters named, each with what it can take of the options; none for "none". What `auto` took goes to stderr."""
    from joulemeter.choosing import AUTO
    from joulemeter.errors import UsageError
    from joulemeter.instrument import Options
    from joulemeter.plan import parse_meter, shared

    if simulate and AUTO in names:
        raise UsageError("auto takes what is connected, so there is nothing to simulate.", "Name the meter.")
    say = Progress(quiet=quiet).say

    options = Options(
        supply_v=units.parse_positive(supply, "V") if supply else None,
        declared_v=units.parse_positive(assume_voltage, "V") if assume_voltage else None,
        settings=settings(pairs),
    )
    found = (parse_meter(name, options, trigger=trigger, runs_here=runs_here, say=say) for name in names)
    return shared([meter for meter in found if meter is not None])


def plain(value: Any) -> Any:
    """JSON-able form of dataclasses and enums, for --json of lists."""
    import msgspec

    return msgspec.to_builtins(value)
