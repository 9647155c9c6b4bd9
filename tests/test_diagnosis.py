"""`scan` and `doctor`: what is absent is no error, what is wrong has its remedy."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from joulemeter import diagnosis, registry
from joulemeter.instrument import Found


def test_the_packages_of_an_extra_are_read_off_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert diagnosis.missing(None) == []
    monkeypatch.setattr(metadata, "version", none_installed)
    assert diagnosis.missing("onnx") == ["onnxruntime"]
    assert diagnosis.missing("no-such-extra") == []


def test_every_instrument_names_an_extra_that_exists() -> None:
    known = set(metadata.metadata("joulemeter").get_all("Provides-Extra") or [])
    for key, module in registry.instruments():
        assert module.INFO.extra is None or module.INFO.extra in known, key


def found(problem: str | None) -> Found:
    return Found(key="ppk2", address="/dev/x", description="x", problem=problem, remedy=problem and "Do this.")


@pytest.mark.parametrize(
    ("units", "words"),
    [([], "not found"), ([found(None), found("busy")], "1 found"), ([found("busy")], "found, cannot be opened")],
)
def test_the_state_of_a_meter(units: list[Found], words: str) -> None:
    assert diagnosis.state(registry.instrument("ppk2").INFO, units) == words


def test_an_extra_that_is_missing_is_told_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "missing", lambda extra: ["hidapi"] if extra else [])
    for key, module in registry.instruments():
        if module.INFO.extra:
            assert diagnosis.state(module.INFO, []) == f"needs extra {module.INFO.extra}", key
    wanting = [finding for finding in diagnosis.examine() if "not installed" in finding.what]
    assert all(finding.state == "absent" and "pip install" in (finding.remedy or "") for finding in wanting)
    assert len(wanting) == sum(1 for _, module in registry.instruments() if module.INFO.extra)


def test_a_device_that_cannot_be_opened_is_broken_and_has_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = registry.instrument("ppk2")
    monkeypatch.setattr(module, "discover", lambda: [found("No permission.")])
    broken = [finding for finding in diagnosis.examine() if finding.state == "broken"]
    assert [finding.remedy for finding in broken] == ["Do this."]


def test_udev_rules_name_every_usb_id_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_rules", lambda: iter(()))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    (lacking,) = [finding for finding in diagnosis.examine() if "udev" in finding.what]
    ids = {(usb.vendor, usb.product) for _, module in registry.instruments() for usb in module.INFO.usb_ids}
    assert lacking.remedy is not None
    assert lacking.remedy.count("ATTRS{idProduct}") == len(ids)
    assert 'ATTRS{idVendor}=="1915", ATTRS{idProduct}=="c00a"' in lacking.remedy


def test_a_rule_that_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = 'SUBSYSTEMS=="usb", ATTRS{idVendor}=="1915", ATTRS{idProduct}=="c00a", TAG+="uaccess"'
    monkeypatch.setattr(diagnosis, "_rules", lambda: iter([rule]))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert any(finding.what == "ppk2: there is a udev rule for it" for finding in diagnosis.examine())


def joulemeter(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "joulemeter", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_scan_all_is_a_table_of_every_instrument_in_eighty_columns() -> None:
    done = joulemeter("scan", "--all")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    first_words = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert set(registry.keys(registry.INSTRUMENTS)) <= set(first_words)


def test_scan_as_json_tells_state_and_verification() -> None:
    supported = json.loads(joulemeter("scan", "--json").stdout)["supported"]
    assert {row["key"] for row in supported} == set(registry.keys(registry.INSTRUMENTS))
    assert all(row["state"] and row["verified"] and row["verified_note"] for row in supported)


def test_doctor_finds_nothing_broken_where_nothing_is_connected(tmp_path: Path) -> None:
    done = joulemeter("doctor", "--json")
    states = {finding["state"] for finding in json.loads(done.stdout)}
    assert done.returncode == (4 if "broken" in states else 0)
