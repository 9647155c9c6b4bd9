"""joulemeter demo"""

from __future__ import annotations

import sys
from pathlib import Path

from joulemeter.cli import common, text
from joulemeter.cli.common import emit

app = common.app("The whole chain on a simulated board and meter.")


@app.command()
def demo(
    output: common.Output = Path("results"),
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """The whole chain on a simulated board and meter, no hardware: numbers, run directory, report."""
    from joulemeter.demo import run

    with common.progress(quiet=quiet) as progress:
        outcome = run(output, progress, tuple(sys.argv))
    emit(text.present(outcome.analysis.result, "json" if json else "text", outcome.folder))
    if not json:
        emit(f"Report: {outcome.folder / 'report.html'}")
    if outcome.trouble is not None:
        raise outcome.trouble
