"""The serial protocol of MLPerf Tiny firmware, host side.

Commands end with `%` and nothing else; each answer ends with the line `m-ready`, also after an error (`e-[...]`). An IO
manager between host and board takes `dut COMMAND%`: it says `m-ready` for itself, then passes the board's lines on with
`[dut]: ` before them. A `%` alone makes the reference firmware crash, so it is never sent.

Source: mlcommons/tiny, benchmark/api and benchmark/runner; eembc/energyrunner, README.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from joulemeter.errors import IncompleteError
from joulemeter.serialtext import BITS_PER_BYTE, U_STAMP_S, Line
from joulemeter.units import show_duration
from joulemeter.workload.firmware import Conversation, SilentError

READY = "m-ready"
# The vendor that a simulated board names, so that whoever records can say so.
SIMULATOR = "joulemeter simulator"
PASSED_ON = "[dut]:"
# A command that needs no computing is answered within this, besides the time on the wire.
ANSWER_S = 2.0
# Complaints that do not begin with e-: of too many bytes, and of too few.
COMPLAINTS = ("e-[", "e-?", "Supplied buffer size", "Input db has")
RESTARTS = ("m-timestamp-mode-", "m-init-done")
# Bytes of input in one command. The firmware's buffer holds 80 characters, a handshake-free chunk 64.
BYTES_PER_COMMAND = {False: 31, True: 26}
LAP_WRAP_US = 1 << 32
# Characters of a usual line.
LINE = 80

REMEDY = (
    "Check the baud rate (9600 in energy mode, 115200 in performance mode), TX and RX, "
    "that the board has power, and that nothing else runs on it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    command: str
    lines: tuple[Line, ...]

    def find(self, prefix: str) -> Line | None:
        return next((line for line in self.lines if line.text.startswith(prefix)), None)

    def need(self, prefix: str) -> Line:
        """Raises IncompleteError when no line begins so."""
        line = self.find(prefix)
        if line is None:
            said = ", ".join(line.text for line in self.lines) or "nothing"
            raise IncompleteError(
                f"The board answered `{self.command}` without {prefix!r}: it said {said}.",
                "Characters are lost on the line: check wiring and baud rate.",
            )
        return line

    def value(self, prefix: str) -> str | None:
        """What stands in the brackets after the prefix, such as kws01 in `m-model-[kws01]`."""
        for line in self.lines:
            match = re.fullmatch(re.escape(prefix) + r"\[(.*)\]", line.text)
            if match:
                return match[1]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferences:
    """One `infer`: the host's stamps around it, the board's own time where it tells, and the results.

    `u_s` is the standard uncertainty of the stamps: firmware may stamp before or after its line has left.
    """

    begin_ns: int
    end_ns: int
    u_s: float
    lap_s: float | None
    results: tuple[float, ...]

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.begin_ns) * 1e-9 if self.lap_s is None else self.lap_s


class Dut:
    """The board, reached directly or, if `managed`, through an IO manager that talks to it at `dut_baud`.

    `busy` is True while an answer is incomplete, also after that raised.
    """

    def __init__(self, talk: Conversation, *, managed: bool = False, dut_baud: int | None = None) -> None:
        self.talk = talk
        self.managed = managed
        self.dut_baud = dut_baud or talk.baud
        self.busy = False

    def ask(self, command: str, patience: Mapping[str, float] | None = None, *, strict: bool = True) -> Answer:
        """Send a command to the board and collect its answer.

        `patience` says how long, in seconds, the next line may take after a line with that prefix. Raises
        IncompleteError for an error in the answer, unless not `strict`; when the board restarts; SilentError.
        """
        if not self.managed:
            return self._ask(command, patience or {}, strict, _all)
        self._ask(f"dut {command}", {}, strict, _own)
        return self._collect(command, patience or {}, strict, _passed_on)

    def ask_manager(self, command: str) -> Answer:
        """Send a command to the IO manager itself, which may not have it. Raises SilentError."""
        return self._ask(command, {}, False, _own)

    def _ask(self, command: str, patience: Mapping[str, float], strict: bool, mine: _Filter) -> Answer:
        self.talk.send(f"{command}%")
        return self._collect(command, patience, strict, mine)

    def _collect(self, command: str, patience: Mapping[str, float], strict: bool, mine: _Filter) -> Answer:
        self.busy = True
        lines: list[Line] = []
        trouble: str | None = None
        # The command on the wire, then a line; through a manager the slower wire counts.
        wire_s = (len(command) + LINE) * BITS_PER_BYTE / min(self.talk.baud, self.dut_baud)
        allowed_s = ANSWER_S + wire_s
        while True:
            line = self.talk.line(allowed_s)
            if line is None:
                self.talk.finish()
                raise self._silent(command, lines, allowed_s)
            text = mine(_from_beginning(line.text))
            if text is None:
                continue
            if text.endswith(READY):
                self.busy = False
                break
            said = Line(text=text, began_ns=line.began_ns, ended_ns=line.ended_ns)
            lines.append(said)
            if text.startswith(COMPLAINTS):
                trouble = trouble or text
            if strict and text.startswith(RESTARTS):
                raise IncompleteError(
                    f"The board restarted during `{_brief(command)}`.", "Check its supply: it may have browned out."
                )
            more_s = next((more_s for prefix, more_s in patience.items() if text.startswith(prefix)), 0.0)
            allowed_s = ANSWER_S + wire_s + more_s
        if strict and trouble:
            raise IncompleteError(
                f"The board answered `{_brief(command)}` with {trouble!r}.",
                "Characters may be lost on the line, or the firmware wants another input; what was recorded is kept.",
            )
        return Answer(command=command, lines=tuple(lines))

    def _silent(self, command: str, lines: list[Line], allowed_s: float) -> SilentError:
        after = f" after {lines[-1].text!r}" if lines else ""
        damaged = f" {self.talk.damaged} lines came that are no text." if self.talk.damaged else ""
        return SilentError(
            f"The board on {self.talk.link.address} fell silent during `{_brief(command)}`{after}: "
            f"nothing for {show_duration(allowed_s)}.{damaged}",
            REMEDY,
        )

    # -- commands -----------------------------------------------------------------------------------------------------

    def load(self, data: bytes, progress: Callable[[float], None]) -> None:
        """Upload an input; `progress` is given the part that is done. Raises as `ask`."""
        self.ask(f"db load {len(data)}").need("m-[Expecting")
        step = BYTES_PER_COMMAND[self.managed]
        for first in range(0, len(data), step):
            answer = self.ask(f"db {data[first : first + step].hex()}")
            progress(min(1.0, (first + step) / len(data)))
        answer.need("m-load-done")

    def infer(self, count: int, warmups: int, patience_s: float) -> Inferences:
        """`count` inferences after `warmups`; one may take `patience_s`. Raises as `ask`."""
        patience = {
            "m-warmup-start": warmups * patience_s,
            "m-infer-start": count * patience_s,
            "m-lap-us": count * patience_s,
        }
        answer = self.ask(f"infer {count} {warmups}", patience)
        begin, end = answer.need("m-infer-start"), answer.need("m-infer-done")
        laps = [line for line in answer.lines if line.text.startswith("m-lap-us-")]
        if len(laps) == 2:
            # The first is printed within what it times, the second after it.
            end = laps[1]
        return Inferences(
            begin_ns=begin.ended_ns,
            end_ns=end.began_ns,
            u_s=math.hypot(U_STAMP_S, (len(begin.text) + 2) * BITS_PER_BYTE / self.dut_baud / 12**0.5),
            lap_s=_lap_s(laps[0].text, laps[1].text) if len(laps) == 2 else None,
            results=_results(answer),
        )


# Where a line of this protocol begins; noise may precede it.
_BEGINNING = re.compile(r"(\[dut\]:\s*)?(m-[a-z\[]|e-[\[?])")

_Filter = Callable[[str], str | None]


def _brief(command: str) -> str:
    return command if len(command) <= 24 else f"{command[:24]}..."


def _from_beginning(text: str) -> str:
    match = _BEGINNING.search(text)
    return text[match.start() :] if match else text


def _all(text: str) -> str:
    return text


def _own(text: str) -> str | None:
    """What an IO manager says for itself, corruption of its line included."""
    return None if text.startswith(PASSED_ON) else text


def _passed_on(text: str) -> str | None:
    """What the board says, or an IO manager's complaint about the line to it."""
    if text.startswith(PASSED_ON):
        return text.removeprefix(PASSED_ON).strip()
    return text if text.startswith(COMPLAINTS) else None


def _lap_s(first: str, second: str) -> float | None:
    counts = [re.fullmatch(r"m-lap-us-(\d+)", text) for text in (first, second)]
    if counts[0] is None or counts[1] is None:
        return None
    return (int(counts[1][1]) - int(counts[0][1])) % LAP_WRAP_US * 1e-6


def _results(answer: Answer) -> tuple[float, ...]:
    """Raises IncompleteError when they are not there or no numbers."""
    line = answer.need("m-results-")
    text = answer.value("m-results-")
    try:
        return tuple(float(number) for number in (text or "").split(",") if number.strip())
    except ValueError:
        raise IncompleteError(
            f"The board's results are not numbers: {line.text}", "Characters are lost on the line: check the wiring."
        ) from None
