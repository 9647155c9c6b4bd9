"""A driver in a package of its own, written and installed by somebody else, works as ours do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).with_name("third_party")
MOST_LINES = 100


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process needs to find the package, laid out as an installer leaves it."""
    place = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copy(PACKAGE / "bench_meter.py", place)
    installed = place / f"bench_meter-{project['version']}.dist-info"
    installed.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (installed / "METADATA").write_text(about, encoding="utf-8")
    groups = "\n".join(
        f"[{group}]\n" + "\n".join(f"{key} = {module}" for key, module in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (installed / "entry_points.txt").write_text(groups, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(place)}


def joulemeter(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "joulemeter", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=100,
    )


def test_it_takes_a_hundred_lines_at_most() -> None:
    assert len((PACKAGE / "bench_meter.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_it_is_found_by_its_entry_point(environment: dict[str, str]) -> None:
    supported = json.loads(joulemeter(environment, "scan", "--json").stdout)["supported"]
    assert "bench" in {row["key"] for row in supported}
    assert "bench" not in {
        row["key"] for row in json.loads(joulemeter(dict(os.environ), "scan", "--json").stdout)["supported"]
    }


def test_it_keeps_the_contract(environment: dict[str, str]) -> None:
    done = joulemeter(environment, "conform", "bench", "--simulate", "--json", "--quiet")
    outcomes = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0, [row for row in outcomes.values() if row["outcome"] == "BROKEN"]
    assert {row["outcome"] for row in outcomes.values()} == {"kept"}


def test_it_measures(environment: dict[str, str], tmp_path: Path) -> None:
    done = joulemeter(
        environment,
        *("measure", "--meter", "bench", "--simulate", "--trigger", "shape", "--duration", "9s", "--json", "--quiet"),
        *("--output", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    energy = result["energy_per_inference_j"]
    low, high = energy["ci95_total"]
    assert low <= 5.0 * 0.1 * 0.6 <= high
    assert result["simulated"] is True
