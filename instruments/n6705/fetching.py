"""The two ways to measure: the external data log, fetched for ever, and arrays, one for each trigger.

The log's trap: the shortest interval is 102.4 us for each parameter that is logged, on all outputs together, and what
is asked below that is silently stretched. So the logs of all other outputs are switched off, the interval that was
granted is read back, and what comes is held to the host's clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulemeter import frames, units
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, UsageError
from joulemeter.scpi import CutShortError, Scpi, SilentError

from . import wire

FETCH_S, COMPLAINT_S = 1.0, 0.3
# Fetching has to come back before the buffer is full, which is only said to be at about 20 s.
OVERDUE_S = 0.75 * wire.BUFFER_S
# By how much what was logged may lag behind the host's clock, or run ahead: seconds, and a share of the time.
LAG_S, LAG_SHARE = 0.5, 1e-3
SAME = 1e-3
# Rounding to the grid changes the shortest interval of the log by no more than this share.
ON_GRID = 0.06
POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured. `exact`: the user named the period. `range_a` None: the module chooses."""

    output: int
    outputs: int
    parameters: int
    period_s: float
    exact: bool
    range_a: float | None
    points: int
    before: int
    wait_s: float

    @property
    def at(self) -> str:
        return f"(@{self.output})"

    @property
    def everywhere(self) -> str:
        return f"(@1:{self.outputs})" if self.outputs > 1 else "(@1)"

    @property
    def both(self) -> bool:
        return self.parameters > 1


class Log:
    """The external data log of one output."""

    def __init__(self, scpi: Scpi, plan: Plan) -> None:
        self._scpi, self._plan = scpi, plan
        self.period_s = plan.period_s
        self._found: list[tuple[str, list[bool]]] = []
        self._held = b""
        self._number = self._received = 0
        self._begun = self._fetched = 0.0
        self._missed = False

    def prepare(self) -> None:
        plan, scpi = self._plan, self._scpi
        functions = ("CURR", "VOLT", "CURR:MINM", "VOLT:MINM")
        self._found = [(name, self._flags(name)) for name in functions]
        scpi.command(
            f":ABOR:ELOG {plan.everywhere}",
            *(f":SENS:ELOG:FUNC:{name} OFF,{plan.everywhere}" for name in reversed(functions)),
        )
        ranging = (
            f":SENS:ELOG:CURR:RANG:AUTO ON,{plan.at}"
            if plan.range_a is None
            else f":SENS:ELOG:CURR:RANG:AUTO OFF,{plan.at};:SENS:ELOG:CURR:RANG {plan.range_a:.9g},{plan.at}"
        )
        scpi.command(
            ":FORM REAL",
            ":FORM:BORD NORM",
            ":SENS:SWE:TINT:RES RES20",
            f":SENS:ELOG:FUNC:CURR ON,{plan.at}",
            *([f":SENS:ELOG:FUNC:VOLT ON,{plan.at}", f":SENS:ELOG:VOLT:RANG MAX,{plan.at}"] if plan.both else []),
            ranging,
            f":SENS:ELOG:PER {plan.period_s:.9g},{plan.at}",
            f":TRIG:ELOG:SOUR IMM,{plan.at}",
        )
        self._refuse_others()
        self.period_s = granted(scpi, f":SENS:ELOG:PER? {plan.at}", plan)

    def _flags(self, function: str) -> list[bool]:
        answer = self._scpi.ask(f":SENS:ELOG:FUNC:{function}? {self._plan.everywhere}")
        return [field.strip() not in ("0", "OFF") for field in answer.split(",")]

    def _refuse_others(self) -> None:
        wanted = [number == self._plan.output for number in range(1, self._plan.outputs + 1)]
        nothing = [False] * self._plan.outputs
        for name, there in (("CURR", wanted), ("VOLT", wanted if self._plan.both else nothing)):
            if (seen := self._flags(name)) != there:
                also = [str(k + 1) for k, (is_on, right) in enumerate(zip(seen, there, strict=False)) if is_on != right]
                raise UsageError(
                    f"The log of {name} on output {', '.join(also) or '?'} does not stay as it is set.",
                    "Each parameter that is logged stretches the interval: stop what else uses the instrument.",
                )

    def begin(self) -> None:
        self._begun = self._fetched = time.monotonic()
        self._scpi.command(f":INIT:ELOG {self._plan.at}")

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError."""
        deadline = time.monotonic() + timeout_s
        while True:
            given = self._frames()
            if given:
                return given
            pause_s = self._fetched + max(wire.PACE_S, self.period_s) - time.monotonic()
            if pause_s > 0:
                time.sleep(min(pause_s, max(deadline - time.monotonic(), 0.0)))
            if time.monotonic() >= deadline:
                return b""
            if not self._fetch():
                return b""

    def _frames(self) -> bytes:
        """All that is held in frames of equal size; the rest waits."""
        width, count = wire.record_bytes(self._plan.parameters), wire.records_of(self.period_s)
        made = []
        while len(self._held) >= width * count:
            payload, self._held = self._held[: width * count], self._held[width * count :]
            now_ns = time.monotonic_ns()
            made.append(
                frames.pack(
                    frames.Frame(kind=wire.LOG, number=self._number, before_ns=now_ns, after_ns=now_ns, payload=payload)
                )
            )
            self._number += count
        return b"".join(made)

    def _fetch(self) -> bool:
        """Take what there is; False where no answer came. Fetching takes records out of the instrument for good."""
        began = time.monotonic()
        overdue = began - self._fetched > OVERDUE_S
        try:
            got = self._scpi.ask_block(
                f":FETC:ELOG? {wire.MOST_RECORDS},{self._plan.at}", timeout_s=FETCH_S, retries=0
            ).tobytes()
        except SilentError:
            self._missed = True
            return False
        except CutShortError as error:
            raise self._gone(error.what) from error
        except DataError as error:
            raise self._gone(f"{error.what} {self._complaints()}") from error
        self._fetched = time.monotonic()
        if self._missed:
            raise self._gone("An answer with records got lost.")
        if overdue:
            raise self._gone(f"Nothing was fetched for {OVERDUE_S:g} s, and its buffer overwrites what is older.")
        width = wire.record_bytes(self._plan.parameters)
        records, rest = divmod(len(got), width)
        if rest:
            raise self._gone(f"It sent {len(got)} bytes, which are not whole records of {width}.")
        self._held += got
        self._received += records
        if records < wire.MOST_RECORDS:
            self._hold_to_clock(began)
        return True

    def _hold_to_clock(self, until: float) -> None:
        """Raises IncompleteError where the records so far stand for another time than has passed."""
        passed_s = until - self._begun
        lag_s = passed_s - self._received * self.period_s
        if abs(lag_s) <= LAG_S + LAG_SHARE * passed_s:
            return
        each_s = passed_s / self._received if self._received else passed_s
        raise self._gone(
            f"In {passed_s:.3g} s it logged {self._received} records, one every {units.show(each_s, 's')} where it "
            f"says {units.show(self.period_s, 's')}: records were overwritten, or its interval is another."
        )

    def _gone(self, why: str) -> IncompleteError:
        return IncompleteError(
            f"The log at {self._scpi.address} has a hole of unknown length. {why}",
            "What came before is kept. Fetch from a computer with less to do, or choose a longer --set period.",
        )

    def _complaints(self) -> str:
        with contextlib.suppress(JouleMeterError):
            return f"Its error queue says {self._scpi.ask(':SYST:ERR?', timeout_s=COMPLAINT_S, retries=0)}."
        return ""

    def end(self) -> None:
        found, self._found = self._found, []
        self._scpi.write(f":ABOR:ELOG {self._plan.at}", ":FORM ASC")
        for name, flags in found:
            commands = [
                f":SENS:ELOG:FUNC:{name} {state},{at}"
                for state, at in (("OFF", _listed(flags, False)), ("ON", _listed(flags, True)))
                if at
            ]
            self._scpi.write(*commands)
        # An answer, so that all of it has been carried out before the connection closes.
        self._scpi.ask("*OPC?", retries=0)


class Arrays:
    """One record for each pulse at the trigger input."""

    def __init__(self, scpi: Scpi, plan: Plan) -> None:
        self._scpi, self._plan = scpi, plan
        self.period_s = plan.period_s
        self._zero = self._armed_at = 0.0
        self._armed = False
        self._next = 0

    def prepare(self) -> None:
        plan = self._plan
        ranging = (
            f":SENS:CURR:RANG:AUTO ON,{plan.at}"
            if plan.range_a is None
            else f":SENS:CURR:RANG:AUTO OFF,{plan.at};:SENS:CURR:RANG {plan.range_a:.9g},{plan.at}"
        )
        self._scpi.command(
            f":ABOR:ACQ {plan.at}",
            ":FORM REAL",
            ":FORM:BORD NORM",
            ":SENS:SWE:TINT:RES RES20",
            f":SENS:FUNC:CURR ON,{plan.at}",
            f":SENS:FUNC:VOLT {'ON' if plan.both else 'OFF'},{plan.at}",
            ranging,
            f":SENS:SWE:TINT {plan.period_s:.9g},{plan.at}",
            f":SENS:SWE:POIN {plan.points},{plan.at}",
            f":SENS:SWE:OFFS:POIN {-plan.before},{plan.at}",
            f":TRIG:ACQ:SOUR EXT,{plan.at}",
        )
        self.period_s = granted(self._scpi, f":SENS:SWE:TINT? {plan.at}", plan)

    def begin(self) -> None:
        self._zero = time.monotonic()
        self._arm()

    def _arm(self) -> None:
        self._scpi.ask("*ESR?")
        self._armed_at = time.monotonic()
        self._scpi.write(f":INIT:ACQ {self._plan.at}", "*OPC")
        self._armed = True

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when no trigger comes for as long as the setting `wait` says."""
        deadline = time.monotonic() + timeout_s
        if not self._armed:
            self._arm()
        while True:
            try:
                done = int(self._scpi.ask("*ESR?", timeout_s=FETCH_S, retries=0)) & 1
            except SilentError:
                return b""
            except ValueError as error:
                raise IncompleteError("Its event register is no number.", "What came before is kept.") from error
            if done:
                return self._record()
            now = time.monotonic()
            if now - self._armed_at > self._plan.wait_s:
                raise IncompleteError(
                    f"No trigger came within {units.show_duration(self._plan.wait_s)}.",
                    "The trigger input is low-true and wants 2 us at least: check wire and level, or set wait=5min. A "
                    "trigger that comes before the samples ahead of it are taken is ignored.",
                )
            if now >= deadline:
                return b""
            time.sleep(min(POLL_S, max(deadline - now, 0.0)))

    def _record(self) -> bytes:
        plan = self._plan
        self._armed = False
        payload = b""
        for name in ("CURR", "VOLT")[: plan.parameters]:
            got = self._scpi.ask_block(f":FETC:ARR:{name}? {plan.at}", dtype=np.uint8).tobytes()
            if len(got) != plan.points * wire.SINGLE.itemsize:
                raise IncompleteError(
                    f"A record of {plan.points} samples came as {len(got)} bytes.", "What came before is kept."
                )
            payload += got
        # Records that follow each other closely are still two.
        number = max(round((self._armed_at - self._zero) / self.period_s), self._next + 1)
        self._next = number + plan.points
        now_ns = time.monotonic_ns()
        return frames.pack(
            frames.Frame(kind=wire.ARRAY, number=number, before_ns=now_ns, after_ns=now_ns, payload=payload)
        )

    def end(self) -> None:
        self._scpi.write(f":ABOR:ACQ {self._plan.at}", ":FORM ASC")
        self._scpi.ask("*ESR?", retries=0)


def granted(scpi: Scpi, query: str, plan: Plan) -> float:
    """The interval that the instrument says it keeps. Raises UsageError where that is not the one asked for."""
    period_s = scpi.ask_number(query)
    if period_s is None or not period_s > 0:
        raise UsageError(f"The instrument answers {query} with no interval.", "See its error queue.")
    on_grid = abs(period_s - plan.period_s) <= min(wire.GRID_S / 2, ON_GRID * plan.period_s) * (1 + SAME)
    if not on_grid and (plan.exact or period_s > 2 * plan.period_s):
        raise UsageError(
            f"Asked for a sample every {units.show(plan.period_s, 's')}, the instrument grants "
            f"{units.show(period_s, 's')}.",
            "More is logged than this program asked for, or this mainframe is slower: stop what else uses it, or give "
            f"--set period={units.show(period_s, 's').replace(' ', '')}.",
        )
    return snapped(period_s)


def snapped(period_s: float) -> float:
    """Without the rounding of what was told: all intervals lie on a grid of a quarter of wire.GRID_S."""
    step_s = wire.GRID_S / 4
    exact_s = round(period_s / step_s) * step_s
    return exact_s if abs(exact_s / period_s - 1) <= SAME else period_s


def _listed(flags: Sequence[bool], wanted: bool) -> str:
    numbers = [str(number) for number, flag in enumerate(flags, start=1) if flag == wanted]
    return f"(@{','.join(numbers)})" if numbers else ""
