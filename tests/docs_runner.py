"""Runs what documents show: one command, or one block of Python, in a folder of its own, in a worker process.

Workers stay, so that libraries are imported once and not by each command.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def command(words: list[str], folder: str) -> Done:
    """`joulemeter WORDS`, as the installed program does it."""
    from joulemeter import cli

    def run() -> None:
        sys.argv = ["joulemeter", *words]
        cli.main()

    return _watched(run, folder)


def block(source: str, folder: str) -> Done:
    """A block of Python. Meters are simulated ones, without an edge; what the reader brings is stood in for."""

    def run() -> None:
        import joulemeter

        real = joulemeter.open, joulemeter.measure
        names: dict[str, Any] = {
            "__name__": "shown",
            "interpreter": SimpleNamespace(invoke=_infer),
            "samples": range(10),
            "prepare": lambda sample: sample,
            "model": lambda sample: _infer(),
        }
        torch = SimpleNamespace(no_grad=contextlib.nullcontext, cuda=SimpleNamespace(synchronize=_infer))
        mine = SimpleNamespace(batch=None, model=lambda batch: None)
        sys.modules.update({"torch": torch, "mine": mine})  # type: ignore[dict-item]
        try:
            joulemeter.open = _simulated(joulemeter.open)
            joulemeter.measure = _simulated(joulemeter.measure)
            exec(compile(source, "shown", "exec"), names)  # noqa: S102 - it is what is tested
            for _ in range(3):
                names.get("infer", _infer)()
        finally:
            joulemeter.open, joulemeter.measure = real
            del sys.modules["torch"], sys.modules["mine"]

    return _watched(run, folder)


def _infer() -> None:
    import time

    time.sleep(0.1)


def _simulated(function: Any) -> Any:
    def called(*arguments: Any, edge: str | None = None, **named: Any) -> Any:
        return function(*arguments, simulate=True, **named)

    return called


def _watched(run: Any, folder: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    os.chdir(folder)
    os.environ["JOULEMETER_DATA"] = str(Path(folder, "data"))
    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.path.remove(folder)
    return Done(0 if code is None else int(code), out.getvalue(), err.getvalue())
