"""Drives an LPM01A with the runner of MLCommons (mlcommons/tiny, Apache-2.0), as a program of its own.

    python lpm01a_witness.py CHECKOUT PORT SECONDS

CHECKOUT is a copy of that repository. Prints what its PowerManager collected, as one line of JSON on standard output;
what the runner itself prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any


def main(checkout: str, port: str, seconds: str) -> None:
    sys.path.insert(0, str(Path(checkout) / "benchmark" / "runner"))
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        from power_manager.power_manager import PowerManager  # type: ignore[import-not-found]

        power = PowerManager("lpm01a", port_device=port, baud_rate=3686400, voltage=3.0)
        found["board"], found["version"] = power.get_board_id(), power.get_version()
        found["powered"] = power.power_on()[0]
        found["started"] = power.start()[0]
        time.sleep(float(seconds))
        # As its script gathers them: numbers are samples, texts are stamps and events.
        results = list(power.get_results())
        power.__exit__()
    samples = [value for value in results if not isinstance(value, str)]
    found["joules"] = sum(samples)
    found["samples"] = len(samples)
    found["stamps"] = [text for text in results if isinstance(text, str) and text.startswith("TimeStamp")]
    found["unread"] = [text for text in found["stamps"] if not STAMP.match(text)]
    events, seen = [], 0
    for value in results:
        if isinstance(value, str):
            if match := EVENT.match(value):
                events.append((match[1], seen))
        else:
            seen += 1
    found["events"] = events
    print(json.dumps(found))


# The two forms that the runner's script reads.
STAMP = re.compile(r"^TimeStamp:[ ><][0-9]{3}s [0-9]{3}ms, buff [0-9]{2}%$")
EVENT = re.compile(r"event (\d+) ris")

if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
