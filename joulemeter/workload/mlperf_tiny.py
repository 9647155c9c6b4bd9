"""MLPerf Tiny: firmware that speaks the benchmark's serial protocol, `mlperf-tiny@PORT[,BAUD]`.

Five windows over five inputs, each of at least ten seconds and ten inferences: upload, `infer N W`, and the window lies
between the lines m-infer-start and m-infer-done. In energy mode the board also pulls its stamp line low at both ends
(the falling edges count), in performance mode it prints its own time. The streaming wake word is not run: it needs the
benchmark's interface board to play sounds to it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from joulemeter import units
from joulemeter.capture import Event
from joulemeter.errors import IncompleteError, JouleMeterError, UsageError
from joulemeter.serialtext import parse_port
from joulemeter.synthetic import Load
from joulemeter.transport import Link
from joulemeter.transport.connect import connect
from joulemeter.units import show_duration
from joulemeter.workload import Habits, Say, SimulatedBoard, Stamps, Workload, refuse_unknown_options, whole
from joulemeter.workload.firmware import Conversation, NowNs, SilentError
from joulemeter.workload.mlperf_inputs import INPUTS, Input, drawn, family, find, read
from joulemeter.workload.mlperf_protocol import ANSWER_S, READY, REMEDY, SIMULATOR, Answer, Dut, Inferences

RUNTIME = "MLPerf Tiny firmware"
BAUD = {"energy": 9600, "performance": 115200}
MANAGER_BAUD = 115200
OPTIONS = ("mode", "baud", "boot", "timeout", "io", "input", "seed", "n", "window")
# The rules of the benchmark's runners (eembc/energyrunner, README; mlcommons/tiny, benchmark/runner).
MIN_WINDOW_S = 10.0
MIN_INFERENCES = 10
WARMUPS = 1
# A board that boots is not spoken to before it has been quiet for so long.
LISTEN_S = 0.5
QUIET_S = 0.2
# A trial this part of a window tells how many inferences fill one; a window is planned longer by the margin.
TRIAL_PART = 0.1
MARGIN = 0.02
GROWTH = 100
# An inference that takes this many times as long as those before is given up.
PATIENCE = 2.0

OpenLink = Callable[[str, int], Link]


def create(target: str, options: Mapping[str, str]) -> MlperfTiny:
    """The board at `target`, PORT or PORT,BAUD. Raises UsageError."""
    refuse_unknown_options("mlperf-tiny", options, OPTIONS)
    if not target:
        raise UsageError("An mlperf-tiny workload needs a port.", "Write mlperf-tiny@PORT or mlperf-tiny@PORT,BAUD.")
    mode = _one_of("mode", options.get("mode", "energy"), BAUD)
    manager = {"auto": None, "on": True, "off": False}[_one_of("io", options.get("io", "auto"), ("auto", "on", "off"))]
    baud = whole("baud", options["baud"], 1) if "baud" in options else MANAGER_BAUD if manager else BAUD[mode]
    address, baud = parse_port(target, baud)
    return MlperfTiny(
        address,
        baud,
        mode=mode,
        manager=manager,
        boot_s=units.parse_positive(options.get("boot", "5s"), "s"),
        timeout_s=units.parse_positive(options.get("timeout", "30s"), "s"),
        folder=Path(options["input"]) if "input" in options else None,
        seed=whole("seed", options.get("seed", "0"), 0),
        count=whole("n", options["n"], 1) if "n" in options else None,
        window_s=units.parse_positive(options.get("window", f"{MIN_WINDOW_S:g}s"), "s"),
    )


def simulate(load: Load, options: Mapping[str, str]) -> SimulatedBoard:
    """A board with this firmware. Raises UsageError."""
    from joulemeter.workload.mlperf_tiny_board import simulate as simulate_board

    return simulate_board(load, options)


def _one_of(name: str, text: str, known: Sequence[str] | Mapping[str, object]) -> str:
    if text not in known:
        raise UsageError(f"{name} cannot be {text!r}.", f"It is one of {', '.join(known)}.")
    return text


class MlperfTiny(Workload):
    """`manager` None: find out whether an IO manager stands between. `count` None: as many as fill `window_s`.

    `timeout_s` is given to the very first inference; those after it are measured by those before.
    """

    def __init__(
        self,
        address: str,
        baud: int,
        *,
        mode: str = "energy",
        manager: bool | None = None,
        boot_s: float = 5.0,
        timeout_s: float = 30.0,
        folder: Path | None = None,
        seed: int = 0,
        count: int | None = None,
        window_s: float = MIN_WINDOW_S,
        open_link: OpenLink = connect,
        now_ns: NowNs = time.monotonic_ns,
    ) -> None:
        self.address, self.baud, self.mode = address, baud, mode
        self.boot_s, self.timeout_s, self.window_s = boot_s, timeout_s, window_s
        self.folder, self.seed = folder, seed
        triggers = ("d0:falling-pairs", "d7:falling-pairs", "host") if mode == "energy" else ("host",)
        self.habits = Habits(windows=INPUTS, at_once=1, warmup=WARMUPS, triggers=triggers, plays=False)
        self._asked_manager, self._count = manager, count
        self._open_link, self._now_ns = open_link, now_ns
        self._talk: Conversation | None = None
        self._dut: Dut | None = None
        self._files: list[Path] = []
        self._inputs: tuple[Input, ...] = ()
        self._uploaded: Input | None = None
        self._one_s: float | None = None
        self._warmups = 0
        self._say: Say = lambda text: None
        self._vendor: str | None = None
        self._profile: str | None = None
        self._model: str | None = None
        self._windows: list[dict[str, Any]] = []

    # -- before the windows -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        if self.folder is not None:
            self._files = find(self.folder)
        if self._talk is None:
            self._talk = Conversation(self._open_link(self.address, self.baud), self.baud, self._now_ns)

    def ready(self, say: Say) -> None:
        """Raises IncompleteError when the board is silent or refuses; UsageError when it is not what was asked for."""
        self.prepare()
        self._say = say
        say("waiting for the board")
        dut = self._wake()
        if dut.managed:
            dut.ask_manager("tm 0")
            dut.ask_manager("enable-timer")
        answer = dut.ask("profile")
        self._profile, self._model = answer.value("m-profile-"), answer.value("m-model-")
        if self._model is None:
            answer.need("m-model-[")
        self._check_mode(dut.ask("timestamp"))
        self._inputs = self._choose_inputs(self._model or "")
        self._upload(dut, self._inputs[0])
        self._try_out(dut)

    def _conversation(self) -> Conversation:
        if self._talk is None:
            raise UsageError("The board was not prepared.", "Call prepare() and ready() first.")
        return self._talk

    def _ready_dut(self) -> Dut:
        if self._dut is None or self._one_s is None:
            raise UsageError("The board is not ready.", "Call ready() first.")
        return self._dut

    def _wake(self) -> Dut:
        """Wait for the board's boot text, or ask for its name where it has booted already."""
        talk = self._conversation()
        deadline_ns = self._now_ns() + round(self.boot_s * 1e9)
        direct, managed = Dut(talk), Dut(talk, managed=True, dut_baud=BAUD["energy"])
        tried = [dut for dut in (direct, managed) if self._asked_manager in (None, dut.managed)]
        last: Answer | None = None
        while True:
            self._listen(deadline_ns)
            for dut in tried:
                answer = _name(dut)
                if answer is None:
                    break  # silent to one, silent to the other
                last = answer if answer.lines else last
                self._vendor = answer.value("m-name-dut-")
                if self._vendor is not None:
                    talk.drain(QUIET_S, ANSWER_S)
                    self._dut = dut
                    return dut
            if self._now_ns() >= deadline_ns:
                raise self._nobody(last)

    def _listen(self, deadline_ns: int) -> None:
        """Until the board says that it is ready, or says nothing."""
        talk = self._conversation()
        while (line := talk.line(LISTEN_S)) is not None:
            if line.text.endswith(READY) or self._now_ns() >= deadline_ns:
                return

    def _nobody(self, answer: Answer | None) -> JouleMeterError:
        if answer is not None:
            said = ", ".join(line.text for line in answer.lines[:3])
            return IncompleteError(
                f"What is on {self.address} does not give its name as MLPerf Tiny firmware does, "
                f"nor does a board behind it: it says {said}.",
                "Flash that firmware, check the wires between IO manager and board, or name another port.",
            )
        damaged = self._conversation().damaged
        heard = f"only {damaged} lines that are no text" if damaged else "nothing"
        return SilentError(
            f"The board on {self.address} did not answer at {self.baud} baud: {heard} in {show_duration(self.boot_s)}.",
            f"{REMEDY} If it boots for longer, give the option boot.",
        )

    def _check_mode(self, answer: Answer) -> None:
        found = "performance" if answer.find("m-lap-us-") else "energy"
        if found != self.mode:
            raise UsageError(
                f"The firmware on {self.address} was built for {found} mode, not for {self.mode} mode.",
                f"Give the option mode={found}, or build it with EE_CFG_ENERGY_MODE={int(self.mode == 'energy')}.",
            )

    def _choose_inputs(self, model: str) -> tuple[Input, ...]:
        if family(model) in ("sww", "strww"):
            raise UsageError(
                "The board runs the streaming wake word, which listens to sounds of the benchmark's interface board.",
                "Record it while that board plays, with --duration.",
            )
        return read(self._files, model) if self._files else drawn(model, self.seed)

    def _upload(self, dut: Dut, chosen: Input) -> None:
        if chosen is self._uploaded:
            return
        self._uploaded = None
        tenths = 0

        def progress(part: float) -> None:
            nonlocal tenths
            if int(part * 10) > tenths:
                tenths = int(part * 10)
                self._say(f"uploading {chosen.name} · {tenths * 10} %")

        dut.load(chosen.data, progress)
        self._uploaded = chosen

    def _try_out(self, dut: Dut) -> None:
        """Find out how long an inference takes, by ever longer trials, and how many fill a window."""
        count, patience_s = 1, self.timeout_s
        while True:
            self._say(f"trying {count} inferences")
            trial = dut.infer(count, WARMUPS, patience_s)
            jitter_s = 0.0 if trial.lap_s is not None else 2 * trial.u_s
            long_s = max(TRIAL_PART * self.window_s, 10 * jitter_s)
            self._one_s = max(trial.duration_s, 1e-6) / count
            if self._count is not None:
                return
            if trial.duration_s >= long_s:
                break
            growth = 1.2 * long_s / max(trial.duration_s, long_s / GROWTH)
            patience_s = PATIENCE * max(trial.duration_s, jitter_s, 1e-3) / count
            count = math.ceil(count * growth)
        least_s = (trial.duration_s - jitter_s) / count
        self._count = max(MIN_INFERENCES, math.ceil(self.window_s * (1 + MARGIN) / least_s))

    # -- the windows --------------------------------------------------------------------------------------------------

    def warm_up(self, count: int) -> None:
        """Remembered only: each `infer` has its own warm-ups, on the board and outside the window."""
        self._warmups = max(self._warmups, count)

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """As in Workload. Raises IncompleteError when the board refuses, restarts or falls silent."""
        dut = self._ready_dut()
        per_window = inferences_per_window or self._count or MIN_INFERENCES
        done = [self._window(dut, per_window) for _ in range(count)]
        return Stamps(
            begin_ns=np.array([one.begin_ns for one in done], dtype=np.int64),
            end_ns=np.array([one.end_ns for one in done], dtype=np.int64),
            inferences_per_window=per_window,
            u_s=max((one.u_s for one in done), default=None),
        )

    def _window(self, dut: Dut, count: int) -> Inferences:
        number = len(self._windows)
        chosen = self._inputs[number % len(self._inputs)]
        self._upload(dut, chosen)
        one_s = self._one_s or self.timeout_s
        self._say(f"window {number + 1}: {count} inferences, about {show_duration(count * one_s)}")
        done = dut.infer(count, self._warmups, PATIENCE * one_s)
        self._one_s = done.duration_s / count
        self._windows.append(_described(chosen, count, done))
        return done

    def heard(self) -> Sequence[Event]:
        return self._talk.heard() if self._talk is not None else ()

    def describe(self) -> dict[str, Any]:
        dut = self._dut
        right = [row["top1"] == row["label"] for row in self._windows if row["label"] is not None]
        return {
            "runtime": RUNTIME,
            "version": self._profile,
            "delegate": None,
            "threads": None,
            "model": self._model,
            "model_sha256": None,
            "batch": 1,
            "name": None if self._vendor is None else f"dut-[{self._vendor}]",
            "vendor": self._vendor,
            "simulated": self._vendor == SIMULATOR,
            "mode": self.mode,
            "port": self.address,
            "baud": self.baud,
            "io_manager": None if dut is None else dut.managed,
            "inputs": str(self.folder) if self.folder is not None else f"random, seed {self.seed}",
            "inferences_per_window": self._count,
            "inference_s": self._one_s,
            "least_window_s": self.window_s,
            "short_windows": sum(row["duration_s"] < MIN_WINDOW_S for row in self._windows),
            "damaged_lines": self._talk.damaged if self._talk is not None else None,
            "windows": [dict(row) for row in self._windows],
        } | ({"accuracy": {"top1": sum(right) / len(right), "correct": sum(right), "of": len(right)}} if right else {})

    def close(self) -> None:
        talk, self._talk = self._talk, None
        dut, self._dut = self._dut, None
        if talk is None:
            return
        if dut is not None and dut.managed and not dut.busy:
            with contextlib.suppress(JouleMeterError):
                dut.ask_manager("disable-timer")
        talk.link.close()


def _name(dut: Dut) -> Answer | None:
    """The answer to the most harmless command, None when there is none. Raises IncompleteError when unplugged."""
    try:
        return dut.ask("name", strict=False)
    except SilentError:
        return None


def _described(chosen: Input, count: int, done: Inferences) -> dict[str, Any]:
    """`top1` is None where a single score is no class."""
    return {
        "input": chosen.name,
        "inferences": count,
        "duration_s": done.duration_s,
        "lap_s": done.lap_s,
        "results": list(done.results),
        "top1": int(np.argmax(done.results)) if len(done.results) > 1 else None,
        "label": chosen.label,
    }
