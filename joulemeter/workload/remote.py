"""Workloads on another machine over SSH: `KIND:ssh://[user@]host[:port]/PATH`.

    tflite:ssh://pi@raspberrypi/home/pi/kws.tflite       a model file on the board; /~/x is relative to its home
    python:ssh://board/~/bench.py:function               or ssh://board/MODULE:FUNCTION
    command:ssh://board/FOLDER                           the option argv is the command, FOLDER where it runs (home)

The board stamps its windows by its own clock; they are placed on this host's by what `twoway` knows of the two. All
windows of a batch share that error: it moves them together, and leaves their durations alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from joulemeter.capture import Event
from joulemeter.errors import IncompleteError, UsageError
from joulemeter.workload import Habits, Stamps, Workload, refuse_unknown_options, whole
from joulemeter.workload.model import choice
from joulemeter.workload.ssh import Address, AgentDiedError, Board, parse_address
from joulemeter.workload.tflite import delegates as read_delegates

# What an operation may take beyond ten times what is expected of it.
TIMEOUT_S = 600
COMMAND_TIMEOUT_S = 24 * 3600
# The clocks are compared about this often, between windows.
PART_S = 5.0
# And after at most so many windows, whose stamps are half a megabyte.
PART_WINDOWS = 20_000
# A reader on the board wakes this much later than a line comes, at most; rectangular.
LATENCY_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`fields` turns address and options into the agent's request to open the workload; raises UsageError."""

    options: tuple[str, ...]
    fields: Callable[[Address, Mapping[str, str]], dict[str, Any]]
    habits: Habits
    # Calls without stamps after the clocks were compared, which has cooled the caches.
    lead: int
    timeout_s: int


def _tflite(address: Address, options: Mapping[str, str]) -> dict[str, Any]:
    if not address.path:
        raise UsageError(
            "A tflite workload needs a model.", "Write tflite:ssh://HOST/PATH, with the path on the board."
        )
    delegates = read_delegates("delegate", options["delegate"]) if "delegate" in options else ()
    return {
        "model": address.path,
        "runtime": options.get("runtime"),
        "threads": whole("threads", options.get("threads", "1"), 1),
        "batch": whole("batch", options["batch"], 1) if "batch" in options else None,
        "seed": whole("seed", options.get("seed", "0"), 0),
        "delegates": [[one.library, one.options] for one in delegates],
        "xnnpack": choice({"on": True, "off": False}, "xnnpack", options["xnnpack"]) if "xnnpack" in options else None,
    }


def _python(address: Address, options: Mapping[str, str]) -> dict[str, Any]:
    source, _, function = address.path.rpartition(":")
    if not source.strip("/") or not function:
        raise UsageError(
            f"{address.path!r} does not name a function.",
            "Write python:ssh://HOST/PATH/FILE.py:FUNCTION or python:ssh://HOST/MODULE:FUNCTION.",
        )
    # A module has no folders, so its slash only ends the address.
    source = source if source.endswith(".py") else source.removeprefix("/")
    return {"source": source, "function": function, "setup": options.get("setup")}


def _command(address: Address, options: Mapping[str, str]) -> dict[str, Any]:
    remedy = "Put the command behind a lone --, such as: --workload command:ssh://HOST -- ./infer --model kws.bin"
    try:
        argv = json.loads(options.get("argv", "[]"))
    except ValueError as error:
        raise UsageError(f"The command is not a JSON list: {options['argv']!r}.", remedy) from error
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv) or not argv[0]:
        raise UsageError("A command workload needs a command.", remedy)
    if any("\0" in word for word in argv):
        raise UsageError("The command contains a null character, which no program can be given.")
    return {"argv": argv, "folder": address.path or None}


KINDS = {
    "tflite": Kind(
        options=("runtime", "threads", "batch", "seed", "delegate", "xnnpack"),
        fields=_tflite,
        habits=Habits(),
        lead=1,
        timeout_s=TIMEOUT_S,
    ),
    "python": Kind(options=("setup",), fields=_python, habits=Habits(), lead=1, timeout_s=TIMEOUT_S),
    "command": Kind(
        options=("argv",),
        fields=_command,
        habits=Habits(windows=1, at_once=1, warmup=0),
        lead=0,
        timeout_s=COMMAND_TIMEOUT_S,
    ),
}


def create(kind: str, target: str, options: Mapping[str, str]) -> Remote:
    """A workload of that kind at `ssh://...`. Raises UsageError.

    Every kind takes python (the interpreter on the board), ssh (a file for `ssh -F`) and timeout (seconds).
    """
    if kind not in KINDS:
        raise UsageError(f"A {kind} workload does not run over SSH.", f"These do: {', '.join(KINDS)}.")
    row = KINDS[kind]
    refuse_unknown_options(kind, options, (*row.options, "python", "ssh", "timeout"))
    address = parse_address(target)
    board = Board(address, python=options.get("python", "python3"), config=options.get("ssh"))
    timeout_s = whole("timeout", options.get("timeout", str(row.timeout_s)), 1)
    return Remote(kind, row.fields(address, options), board, timeout_s=timeout_s)


class Remote(Workload):
    """`fields` is what the agent on `board` is asked to open. `board.clock` keeps what is known of its clock."""

    def __init__(self, kind: str, fields: Mapping[str, Any], board: Board, *, timeout_s: float = TIMEOUT_S) -> None:
        self.board = board
        self.habits = KINDS[kind].habits
        self._kind = kind
        self._fields = fields
        self._timeout_s = timeout_s
        self._description: dict[str, Any] | None = None
        # Seconds of one inference, None before the first.
        self._pace_s: float | None = None
        self._events: list[Event] = []
        self._exits: Counter[str] = Counter()
        self._lines_not_kept = 0

    def prepare(self) -> None:
        """Connect, bring the agent, load the workload there.

        Raises NotFoundError, AccessError, UsageError, MissingExtraError, DataError, IncompleteError.
        """
        if self._description is not None:
            return
        self.board.open()
        try:
            self.board.exchange()
            self._description = self.board.request("open", self._timeout_s, kind=self._kind, **self._fields)
            self.board.exchange()
        except AgentDiedError as error:
            raise UsageError(
                f"Loading it ended the agent on {self.board.address}: it crashes there, or there is too little memory. "
                f"{error.what}",
                "Try the model on another machine, or another runtime.",
            ) from error
        except BaseException:
            self.board.close()
            raise

    def describe(self) -> dict[str, Any]:
        """With the board's host, machine, kernel, python, cpu and governor, and `clock`: see TwoWayClock.describe.

        A command has `exit_codes` and `lines_not_kept` besides. Asked again, it does not need the board any more.
        """
        if self._description is None:
            self.prepare()
        described = dict(self._description or {})
        described |= {key: value for key, value in self.board.hello.items() if key != "pid"}
        if self._kind == "command":
            described |= {"exit_codes": dict(self._exits), "lines_not_kept": self._lines_not_kept}
        return described | {"clock": self.board.clock.describe()}

    def warm_up(self, count: int) -> None:
        self.prepare()
        if count and self._kind == "command":
            self.run(count)
        elif count:
            self._request(1, count, 0)

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """In parts of PART_S at most, between which the clocks are compared. `u_s` is the largest of all stamps.

        Raises IncompleteError: the connection was lost, the agent died, the function raised, the command failed.
        Raises DataError: a clock has jumped, so that the windows of this call cannot be placed.
        """
        self.prepare()
        per_window = inferences_per_window or 1
        if count < 1 or per_window < 1:
            raise UsageError(f"{count} windows of {per_window} inferences measure nothing.", "Both must be at least 1.")
        stamps, u_s, done = [], 0.0, 0
        self.board.exchange()
        while done < count:
            answer = self._request(self._part(count - done, per_window), per_window, KINDS[self._kind].lead)
            self.board.exchange()
            there_ns = np.array([answer["begin"], answer["end"]], dtype=np.int64)
            here_ns, u_part_s = self.board.clock.place(there_ns)
            stamps.append(here_ns)
            u_s = max(u_s, u_part_s)
            done += here_ns.shape[1]
            self._keep(answer, u_part_s)
        begin_ns, end_ns = np.concatenate(stamps, axis=1)
        return Stamps(begin_ns=begin_ns, end_ns=end_ns, inferences_per_window=per_window, u_s=u_s)

    def heard(self) -> Sequence[Event]:
        """What a command has printed, as events of the source "stdout" on this host's clock."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        self.board.close()

    def _part(self, left: int, per_window: int) -> int:
        """How many windows to ask for at once."""
        if self._kind == "command" or self._pace_s is None:
            return 1
        return min(left, PART_WINDOWS, max(1, int(PART_S / max(self._pace_s * per_window, 1e-9))))

    def _request(self, count: int, per_window: int, lead: int) -> dict[str, Any]:
        expected_s = count * per_window * (self._pace_s or 0.0)
        timeout_s = self._timeout_s + 10 * expected_s
        answer = self.board.request("run", timeout_s, count=count, per_window=per_window, lead=lead)
        took_ns = sum(answer["end"]) - sum(answer["begin"])
        self._pace_s = took_ns * 1e-9 / (len(answer["end"]) * per_window)
        return answer

    def _keep(self, answer: Mapping[str, Any], u_s: float) -> None:
        """What a command printed, and how it ended."""
        if lines := answer.get("lines"):
            at_ns, _ = self.board.clock.place(np.array([stamp for stamp, _ in lines], dtype=np.int64))
            u_line_s = float(np.hypot(u_s, LATENCY_S / 12**0.5))
            self._events += [
                Event(label=text, source="stdout", monotonic_ns=at, u_s=u_line_s)
                for at, (_, text) in zip(at_ns.tolist(), lines, strict=True)
            ]
        self._lines_not_kept += answer.get("lines_not_kept", 0)
        for code in answer.get("codes", ()):
            self._exits[str(code)] += 1
            if code:
                how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
                said = f" Its last line was: {lines[-1][1][:200]}" if lines else ""
                raise IncompleteError(
                    f"{self._fields['argv'][0]} on {self.board.address} {how}.{said}",
                    "What was recorded until then is kept.",
                )
