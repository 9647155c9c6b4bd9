"""python .ci/check_wheel.py WHEEL CHECKOUT: the wheel holds every instrument, profile and published result."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

# folder in the checkout -> its name in the wheel, and the kinds of files that have to arrive
MAPPED = {
    "joulemeter": ("joulemeter", (".py", ".html", ".css", ".js", ".typed")),
    "instruments": ("joulemeter/instruments", (".py", ".md")),
    "profiles": ("joulemeter/profiles", (".py", ".toml", ".tflite")),
    "results/published": ("joulemeter/published", (".py", ".csv", ".md", ".toml")),
}


def main() -> int:
    wheel, checkout = Path(sys.argv[1]), Path(sys.argv[2])
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *MAPPED],  # noqa: S607 - git is what it is called everywhere
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    wanted = set()
    for name in filter(None, tracked):
        for folder, (inside, kinds) in MAPPED.items():
            if name.startswith(f"{folder}/") and name.endswith(kinds):
                wanted.add(f"{inside}/{name.removeprefix(f'{folder}/')}")
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = sorted(wanted - held)
    stray = sorted(name for name in held if name.startswith(("tests/", "instruments/", "profiles/", "results/")))
    for name in missing:
        sys.stdout.write(f"missing from the wheel: {name}\n")
    for name in stray:
        sys.stdout.write(f"does not belong in the wheel: {name}\n")
    sys.stdout.write(f"{len(wanted)} files wanted in {wheel.name}, {len(missing)} missing, {len(stray)} stray\n")
    return 1 if missing or stray else 0


if __name__ == "__main__":
    sys.exit(main())
