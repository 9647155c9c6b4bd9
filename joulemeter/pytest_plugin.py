"""A fixture that measures energy in tests: `energy_meter`.

    def test_keyword_spotting_is_frugal(energy_meter):
        with energy_meter.measure() as m:
            for _ in range(200):
                with m.inference():
                    interpreter.invoke()
        energy_meter.check(max_energy="2.5mJ", max_regression="3%")

    pytest --energy-meter ppk2 --energy-supply 3.0V

Without --energy-meter such tests are skipped. The first run with --energy-update stores the baselines. Nothing heavy is
imported before a test asks for the fixture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from joulemeter.measurement import Measurement
    from joulemeter.result import Result

# Option and ini setting, metavar, help.
SETTINGS = (
    ("energy-meter", "KEY[@ADDRESS]", "the meter that energy_meter records with, such as ppk2"),
    ("energy-supply", "3.0V", "the meter powers the board with this voltage"),
    ("energy-assume-voltage", "3.0V", "the board's own supply, for meters that measure current only"),
    ("energy-trigger", "d0", "what marks the inferences; without it the marks of the test"),
    ("energy-edge", "LINE", "toggle gpio:CHIP/LINE, rts:PORT or dtr:PORT around each inference"),
    ("energy-load", "STEPS", "what a simulated board draws"),
    ("energy-baselines", "FOLDER", "where baselines are kept (energy_baselines beside the configuration file)"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("energy", "energy per inference (JouleMeter)")
    for name, metavar, text in SETTINGS:
        group.addoption(f"--{name}", metavar=metavar, default=None, help=text)
        parser.addini(name.replace("-", "_"), text)
    group.addoption("--energy-simulate", action="store_true", help="use the meter's simulator")
    group.addoption("--energy-update", action="store_true", help="store what is measured as the new baselines")


def _setting(config: pytest.Config, name: str) -> str | None:
    given = config.getoption(f"--{name}") or config.getini(name.replace("-", "_"))
    return str(given) if given else None


@pytest.fixture
def energy_meter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EnergyMeter]:
    """Measures energy per inference within the test, and holds it to limits."""
    if _setting(request.config, "energy-meter") is None:
        pytest.skip("no meter was named: --energy-meter KEY, such as ppk2 (with --energy-simulate if there is none)")
    meter = EnergyMeter(request.config, request.node.name, tmp_path)
    yield meter
    for result in meter.measured:
        # In the JUnit report, beside the test.
        request.node.user_properties.append(("energy_per_inference_j", result.energy_per_inference_j.median))


class EnergyMeter:
    """`measured` are the results of this test so far, the latest last. Recordings are kept in the test's folder."""

    def __init__(self, config: pytest.Config, name: str, output: Path) -> None:
        self.name = name
        self.output = output
        self._config = config
        self._measurements: list[Measurement] = []

    @property
    def measured(self) -> list[Result]:
        return [one.result for one in self._measurements if one.finished]

    @property
    def result(self) -> Result:
        if not self.measured:
            pytest.fail("Nothing was measured: put the inferences into `with energy_meter.measure() as m:`.")
        return self.measured[-1]

    def measure(self, **options: Any) -> Measurement:
        """As `joulemeter.measure`, with the meter of the command line; `options` come before it."""
        from joulemeter.measurement import measure

        names = ("supply", "assume-voltage", "trigger", "edge", "load")
        told: dict[str, Any] = {name.replace("-", "_"): _setting(self._config, f"energy-{name}") for name in names}
        told |= {
            "meter": _setting(self._config, "energy-meter"),
            "simulate": bool(self._config.getoption("--energy-simulate")),
            "name": self.name,
            "output": self.output,
        }
        measurement = measure(**(told | options))
        self._measurements.append(measurement)
        return measurement

    def check(
        self, *, max_energy: str | None = None, max_regression: str | None = None, name: str | None = None
    ) -> None:
        """Fail the test when the latest energy per inference is too high.

        `max_energy` ("2.5mJ") is held to the median. `max_regression` ("3%") to the stored baseline `name` (the test's
        own name): it fails when energy rose and a rise of that much is not excluded, both at 95 %. Unknown energy
        fails; it is never taken for 0.
        """
        from joulemeter import units

        energy = self.result.energy_per_inference_j
        if energy.median is None:
            pytest.fail(f"Energy per inference is unknown: {energy.reason}.")
        said = units.show_uncertain(energy.median, energy.expanded_k2, "J")
        if max_energy is not None and energy.median > units.parse_positive(max_energy, "J"):
            pytest.fail(f"Energy per inference is {said}, more than {max_energy}.")
        if max_regression is not None:
            self._hold(units.parse_positive(max_regression, "1"), self._baseline(name or self.name), said)

    def _baseline(self, name: str) -> Path:
        folder = _setting(self._config, "energy-baselines")
        root = self._config.inipath.parent if self._config.inipath else self._config.rootpath
        return (root / (folder or "energy_baselines") / re.sub(r"[^A-Za-z0-9_.-]+", "-", name)).with_suffix(".json")

    def _hold(self, limit: float, path: Path, said: str) -> None:
        from joulemeter import store
        from joulemeter.errors import JouleMeterError
        from joulemeter.physics.regression import change

        if self._config.getoption("--energy-update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.result.to_json() + "\n", encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"There is no baseline {path}. Run once with --energy-update and keep the file.")
        try:
            found = change(self.result, store.read_result(path))
        except JouleMeterError as error:
            pytest.fail(f"The baseline {path.name} does not compare: {error}")
        if found.worse_than(limit):
            pytest.fail(
                f"Energy per inference is {said}: {found} against the baseline, and +{limit:.2%} is not excluded."
            )
