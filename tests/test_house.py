"""The rules of the house, held: floors, wings, weight, and that nothing is forgotten."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Imports go down only; "wire" and "physics" stand on the same floor and do not know each other.
FLOORS: dict[str, tuple[int, str]] = {}
for _floor, _wing, _names in (
    (0, "ground", "errors units caveat capture window result synthetic timeline pattern trigger"),
    (
        1,
        "wire",
        "instrument reader transport workload readers serialtext markers frames polled ports boardfiles scpi scope "
        "tables",
    ),
    (1, "physics", "physics battery"),
    (
        2,
        "run",
        "registry plan store calibrations calibrating record recorder conduct session simulation profile "
        "live simulated loading diagnosis testing choosing cells lifetime loadprofile rigs literature comparison",
    ),
    (3, "faces", "cli report demo export api measurement pytest_plugin __main__"),
):
    FLOORS |= dict.fromkeys(_names.split(), (_floor, _wing))

HEAVY = (
    *("scipy", "pandas", "matplotlib", "pyvisa", "numba", "plotly", "PIL"),
    *("ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime", "openvino"),
)


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, anywhere in it."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            home = ".".join(filter(None, (base, node.module)))
            yield home
            yield from (f"{home}.{alias.name}" for alias in node.names)


def place(name: str) -> str | None:
    """The room of the core that a module name lies in; None for what is not ours."""
    parts = name.split(".")
    return parts[1] if parts[0] == "joulemeter" and len(parts) > 1 and parts[1] in FLOORS else None


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(ROOT / "joulemeter").parts[0].removesuffix(".py") for path in modules("joulemeter")}
    assert rooms - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", modules("joulemeter"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_wings_stay_apart(path: Path) -> None:
    here = path.relative_to(ROOT / "joulemeter").parts[0].removesuffix(".py")
    if here == "__init__":
        return
    floor, wing = FLOORS[here]
    for name in imported(path):
        assert not name.startswith(("joulemeter.instruments", "instruments")), f"the core names a driver: {name}"
        there = place(name)
        if there is None or there == here:
            continue
        other_floor, other_wing = FLOORS[there]
        assert other_floor <= floor, f"{path.name} on floor {floor} imports {name} above it"
        if floor == other_floor == 1:
            assert wing == other_wing, f"{path.name} of the {wing} wing imports {name} of the {other_wing} wing"


@pytest.mark.parametrize("path", modules("joulemeter"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_ground_needs_numpy_only(path: Path) -> None:
    here = path.relative_to(ROOT / "joulemeter").parts[0].removesuffix(".py")
    if FLOORS.get(here, (9, ""))[0] != 0:
        return
    allowed = {*sys.stdlib_module_names, "numpy", "joulemeter"}
    assert {name.split(".")[0] for name in imported(path)} <= allowed


@pytest.mark.parametrize("path", modules("instruments"), ids=lambda path: str(path.relative_to(ROOT)))
def test_an_instrument_knows_the_wire_wing_and_no_other_instrument(path: Path) -> None:
    own = path.relative_to(ROOT).parts[1]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "instruments" and len(parts) > 1:
            assert parts[1] == own, f"{path} imports {name}"
        assert not name.startswith("joulemeter.instruments"), f"{path} names itself absolutely: {name}"
        there = place(name)
        if there is not None:
            floor, wing = FLOORS[there]
            assert floor == 0 or wing == "wire", f"{path} imports {name} of the {wing} wing"


def test_instruments_and_entry_points_are_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = project["entry-points"]["joulemeter.instruments"]
    folders = {path.parent.name for path in (ROOT / "instruments").glob("*/__init__.py")}
    assert {value.rpartition(".")[2] for value in named.values()} == folders
    assert set(named) == folders


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in (ROOT / "instruments").glob("*/__init__.py")))
def test_an_instrument_folder_is_complete(folder: str) -> None:
    there = {path.name for path in (ROOT / "instruments" / folder).iterdir()}
    assert {"__init__.py", "wire.py", "driver.py", "simulator.py", "notes.md"} <= there


@pytest.mark.parametrize(
    "code",
    [
        "import joulemeter",
        "import joulemeter.cli, sys; sys.argv = ['joulemeter', '--help']; joulemeter.cli.main()",
        "from joulemeter.registry import instruments; list(instruments())",
    ],
    ids=["import", "--help", "registry"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    check = "\nimport sys; sys.stderr.write(' '.join(sys.modules))"
    program = f"try:\n    {code}\nexcept SystemExit:\n    pass{check}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & set(HEAVY)


def test_the_public_names_exist() -> None:
    import joulemeter

    for name in joulemeter.__all__:
        assert getattr(joulemeter, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = joulemeter.nonsense
