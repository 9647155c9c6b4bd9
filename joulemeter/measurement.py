"""Measuring from within the program that infers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from joulemeter import plan, session, store, units
from joulemeter.conduct import Stage, events_of
from joulemeter.errors import JouleMeterError, UsageError
from joulemeter.instrument import Options
from joulemeter.markers import Marker, Marks
from joulemeter.workload import Habits, Stamps

if TYPE_CHECKING:
    from joulemeter.physics.analyze import Analysis
    from joulemeter.result import Result


class Measurement:
    """Records while its block runs; the marks in it say when the model ran.

    with jm.measure("ppk2", supply="3.0V", trigger="d0") as m:
        for _ in range(1000):
            with m.inference():
                interpreter.invoke()
    print(m.result.energy_per_inference_j.median)

    `m.inference(32)` marks a window of 32 inferences, `m.phase("pre")` a part; both mark each call when they decorate
    a function. After the block `result`, `analysis` and `folder` are there; when the block raises, the recording is
    kept in `folder` and there is no result.
    """

    def __init__(self, asked: plan.Plan) -> None:
        self.plan = asked
        self.folder: Path | None = None
        self._analysis: Analysis | None = None
        self._marks: Marks | None = None
        self._held = contextlib.ExitStack()

    def inference(self, count: int = 1) -> Marker:
        """Marks a window of `count` inferences. Raises UsageError outside the block."""
        return self._marking().inference(count)

    def phase(self, name: str) -> Marker:
        """Marks a part of the inference, or work beside it. Raises UsageError outside the block."""
        return self._marking().phase(name)

    @property
    def finished(self) -> bool:
        """Whether the block has ended with a result."""
        return self._analysis is not None

    @property
    def analysis(self) -> Analysis:
        """Raises UsageError before the block has ended, or when it failed."""
        if self._analysis is None:
            raise UsageError("There is no result yet.", "It is there after the `with` block, unless that failed.")
        return self._analysis

    @property
    def result(self) -> Result:
        return self.analysis.result

    def __enter__(self) -> Self:
        """Start the meters. Raises JouleMeterError when one does not start."""
        session.check(self.plan)
        with contextlib.ExitStack() as held:
            addresses, _ = held.enter_context(session.stand_ins(self.plan))
            edge, cost = session.open_edge(self.plan, held)
            meta = session.meta(self.plan, HABITS, None, cost)
            self.folder = store.create_run(self.plan.output, self.plan.name, meta)
            self._stage = held.enter_context(Stage(self.plan, addresses, self.folder, lambda text: None))
            self._stage.baseline()
            self._marks = Marks(self._keep, edge)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, analyse. Raises what ended the recording early, or that nothing was measured."""
        lost: JouleMeterError | None = None
        try:
            self._marking().close()
            if kind is None and self.plan.meters:
                self._stage.rest(self._stage.tail_s)
        except JouleMeterError as caught:
            lost = caught
        finally:
            self._marks = None
            self._held.close()
        if kind is None:
            self._conclude(lost or self._stage.trouble)

    def _conclude(self, trouble: JouleMeterError | None) -> None:
        folder = self.folder
        if folder is None:
            raise UsageError("A measurement begins with `with`.")
        try:
            self._analysis = session.analyze_run(folder, self.plan)
            store.write_result(folder, self._analysis.result, self._analysis.rows)
        except JouleMeterError as error:
            if trouble is not None:
                raise trouble.kept_in(folder) from error
            raise error.kept_in(folder) from None
        if trouble is not None:
            raise trouble.kept_in(folder)

    def _keep(self, stamps: Stamps) -> None:
        self._stage.keep(events_of(stamps))

    def _marking(self) -> Marks:
        if self._marks is None:
            raise UsageError("Marks belong into the `with` block of a measurement.")
        return self._marks


# The marks of this program come from this host; an edge around them is seen by the meter itself.
HABITS = Habits(triggers=("host",))


def measure(
    meter: str | None = None,
    *,
    supply: str | None = None,
    assume_voltage: str | None = None,
    trigger: str | None = None,
    edge: str | None = None,
    baseline: str | None = None,
    max_alignment: float | None = None,
    settings: Mapping[str, str] | None = None,
    simulate: bool = False,
    load: str | None = None,
    name: str | None = None,
    note: str | None = None,
    output: str | Path = "results",
) -> Measurement:
    """A measurement of what this program does; None for the meter measures time only.

    Quantities are texts with units, as on the command line. `trigger` None: the marks of this host, or with `edge`
    ("gpio:gpiochip0/17", "rts:/dev/ttyUSB0") the line d0 that it reaches the meter by. `max_alignment` is the share of
    a window by which its edges may be off. Raises NotFoundError for an unknown meter, UsageError for a bad quantity.
    """
    options = Options(
        supply_v=units.parse_positive(supply, "V") if supply else None,
        declared_v=units.parse_positive(assume_voltage, "V") if assume_voltage else None,
        settings=settings or {},
    )
    parsed = plan.parse_meter(meter or "none", options, trigger=trigger or ("d0" if edge else None), runs_here=True)
    return Measurement(
        plan.Plan(
            meters=(parsed,) if parsed is not None else (),
            output=Path(output),
            name=name or (parsed.key if parsed is not None else "python"),
            trigger=trigger,
            edge=edge,
            marked=True,
            baseline_s=units.parse_positive(baseline, "s") if baseline else None,
            max_alignment=max_alignment,
            simulate=simulate,
            load=load,
            note=note,
            argv=tuple(sys.argv),
        )
    )
