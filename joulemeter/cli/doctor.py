"""joulemeter doctor"""

from __future__ import annotations

import sys

from joulemeter.cli import common
from joulemeter.cli.common import emit, plain

app = common.app("Why a device cannot be opened, with the exact remedy.")


@app.command()
def doctor(json: common.Json = False) -> None:
    """Why a device cannot be opened, with the exact remedy. Exit code 0 as long as nothing found is broken."""
    from json import dumps

    from joulemeter import diagnosis

    findings = diagnosis.examine()
    if json:
        emit(dumps(plain(findings), indent=2))
    else:
        for finding in findings:
            emit(f"{finding.state:8} {finding.what}")
            if finding.remedy:
                emit("\n".join(" " * 9 + line for line in finding.remedy.splitlines()))
    if any(finding.state == "broken" for finding in findings):
        sys.exit(4)
