from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemeter.errors import IncompleteError, JouleMeterError, UsageError
from joulemeter.workload import parse, python

MODEL = """\
import os
calls = []

def infer():
    calls.append(None)

def prepare():
    return {"scale": 2}

def nothing():
    calls.append("nothing")

def scaled(state):
    calls.append(state["scale"])

class Net:
    def __init__(self): self.seen = 0
    def __call__(self): calls.append("net")
    @staticmethod
    def forward(): calls.append("forward")

net = Net()
number = 5

def breaks():
    return deeper([])

def deeper(rows):
    return rows[3]

def leaves():
    raise SystemExit(4)

def stops():
    raise KeyboardInterrupt

async def later(): ...

def lazily():
    yield 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a model in it; nothing of it stays behind."""
    (tmp_path / "jm_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        if name.startswith("jm_"):
            del sys.modules[name]


def line_of(text: str) -> int:
    return MODEL.splitlines().index(text) + 1


def calls(workload: python.PythonCall) -> list[object]:
    workload.prepare()
    function = workload._call
    assert function is not None
    module = sys.modules[workload.source.removesuffix(".py").rpartition("/")[2]]
    found = module.calls
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("target", ["jm_model:infer", "jm_model.py:infer"])
def test_it_is_called_once_per_inference(folder: Path, target: str) -> None:
    assert parse(f"python:{target}").target == target
    workload = python.create(target, {})
    seen = calls(workload)
    workload.warm_up(3)
    assert len(seen) == 3
    stamps = workload.run(4, 5)
    assert len(seen) == 3 + 4 * 5
    assert len(stamps) == 4 and stamps.inferences_per_window == 5
    assert (stamps.end_ns >= stamps.begin_ns).all()
    workload.run(2)
    assert len(seen) == 25


def test_a_file_elsewhere_can_import_its_neighbours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "jm_neighbour.py").write_text("def work(): return 1")
    (other / "jm_main.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport jm_neighbour\n"
        "@dataclass\nclass State:\n    n: int = 0\n"
        "def infer(): jm_neighbour.work(); State()\n"
    )
    assert len(python.create(f"{other / 'jm_main.py'}:infer", {}).run(2)) == 2


def test_setup_is_called_once_and_its_result_passed(folder: Path) -> None:
    workload = python.create("jm_model:scaled", {"setup": "prepare"})
    workload.run(3)
    workload.prepare()
    assert calls(workload) == [2, 2, 2]


def test_a_setup_that_returns_nothing_passes_nothing(folder: Path) -> None:
    workload = python.create("jm_model:infer", {"setup": "nothing"})
    workload.run(2)
    assert calls(workload) == ["nothing", None, None]


@pytest.mark.parametrize(("name", "said"), [("net", "net"), ("Net.forward", "forward")])
def test_objects_and_methods(folder: Path, name: str, said: str) -> None:
    workload = python.create(f"jm_model:{name}", {})
    workload.run(1)
    assert calls(workload) == [said]


def test_describe(folder: Path) -> None:
    told = python.create("jm_model.py:scaled", {"setup": "prepare"}).describe()
    assert told["runtime"] == "python" and told["version"] == platform.python_version()
    assert told["model"] == "jm_model.py:scaled" and told["setup"] == "prepare"
    assert told["model_sha256"] == hashlib.sha256(MODEL.encode()).hexdigest()
    assert {"cpu", "governor", "threads", "delegate", "batch"} <= told.keys()
    assert python.create("time:monotonic", {}).describe()["model_sha256"] is None


def test_the_edge_lies_around_the_window_next_to_the_stamps(folder: Path) -> None:
    toggles: list[int] = []

    class Line:
        def begin(self) -> None:
            toggles.append(time.monotonic_ns())

        def end(self) -> None:
            toggles.append(time.monotonic_ns())

    workload = python.create("jm_model:infer", {})
    workload.edges(Line())
    workload.warm_up(2)
    assert not toggles
    stamps = workload.run(2)
    assert toggles[0] <= stamps.begin_ns[0] <= stamps.end_ns[0] <= toggles[1] <= toggles[2] <= stamps.begin_ns[1]
    broken = python.create("jm_model:breaks", {})
    broken.edges(Line())
    with pytest.raises(IncompleteError):
        broken.run(1)
    assert len(toggles) == 6


# --- a callable that raises


def test_the_users_line_is_named(folder: Path) -> None:
    workload = python.create("jm_model:breaks", {})
    place = rf"jm_model\.py:{line_of('    return rows[3]')} in deeper"
    with pytest.raises(IncompleteError, match=rf"inside a window: IndexError: list index out of range .*{place}") as it:
        workload.run(1)
    assert it.value.exit_code == 6 and "kept" in str(it.value)
    with pytest.raises(IncompleteError, match=rf"while warming up: IndexError.*{place}"):
        workload.warm_up(1)


def test_the_users_line_is_named_where_a_library_raises(folder: Path) -> None:
    (folder / "jm_lib.py").write_text("import json\n\ndef infer():\n    json.loads('{')\n")
    with pytest.raises(IncompleteError, match=r"JSONDecodeError: .*jm_lib\.py:4 in infer"):
        python.create("jm_lib:infer", {}).run(1)


def test_leaving_is_not_the_end_of_the_measurement_program(folder: Path) -> None:
    with pytest.raises(IncompleteError, match=r"SystemExit: 4 .*in leaves"):
        python.create("jm_model:leaves", {}).run(1)


def test_ctrl_c_passes_through(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        python.create("jm_model:stops", {}).run(1)
    # From within: before it runs, garbage is collected, and an interrupt of a collector's callback is lost.
    source = "import os, signal, threading, time\ndef infer():\n"
    source += "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n    time.sleep(30)\n"
    (folder / "jm_long.py").write_text(source)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        python.create("jm_long:infer", {}).run(1)
    assert time.monotonic() - began < 20


def test_an_error_of_the_edge_is_not_blamed_on_the_function(folder: Path) -> None:
    class Lost:
        def begin(self) -> None:
            raise IncompleteError("The edge line was lost.")

        def end(self) -> None: ...

    workload = python.create("jm_model:infer", {})
    workload.edges(Lost())
    with pytest.raises(IncompleteError, match=r"^The edge line was lost\.$"):
        workload.run(1)


# --- what cannot be used


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("", {}, "does not name a function"),
        ("jm_model", {}, "does not name a function"),
        ("jm_model:", {}, "does not name a function"),
        (":infer", {}, "does not name a function"),
        ("jm_model:infer", {"set_up": "x"}, r"no option 'set_up'\. Did you mean setup\?"),
        ("jm_absent:infer", {}, "There is no Python module 'jm_absent'"),
        ("jm_absent.part:infer", {}, r"There is no Python module 'jm_absent\.part'"),
        ("jm_absent.py:infer", {}, r"There is no Python file jm_absent\.py"),
        ("jm_model:infre", {}, r"no function 'infre'\. Did you mean infer\?"),
        ("jm_model:xyz", {}, r"no function 'xyz'\. It has .*infer"),
        ("jm_model:number", {}, "number of jm_model is int, not a function"),
        ("jm_model:infer", {"setup": "xyz"}, "no function 'xyz'"),
        ("jm_model:scaled", {}, r"scaled\(state\) of jm_model cannot be called without arguments: .*setup"),
        ("jm_model:infer", {"setup": "prepare"}, r"infer\(\) of jm_model cannot be called with what prepare returned"),
        ("jm_model:infer", {"setup": "scaled"}, r"scaled\(state\) of jm_model cannot be called without arguments"),
        ("jm_model:infer", {"setup": "breaks"}, r"breaks of jm_model failed: IndexError: .*in deeper"),
        ("jm_model:later", {}, "later of jm_model is a coroutine function"),
        ("jm_model:lazily", {}, "lazily of jm_model is a generator"),
        ("jm_bad.py:infer", {}, r"jm_bad\.py cannot be imported: SyntaxError: .*jm_bad\.py:2"),
        ("jm_bad:infer", {}, r"jm_bad cannot be imported: SyntaxError: .*jm_bad\.py:2"),
        ("jm_script.py:infer", {}, r"cannot be imported: SystemExit: 0 .*jm_script\.py:3"),
        ("jm_needy:infer", {}, r"jm_needy cannot be imported: ModuleNotFoundError: .*jm_no_such.*jm_needy\.py:1"),
        ("jm_pack.part:infer", {}, r"cannot be imported: ZeroDivisionError"),
    ],
)
def test_refused(folder: Path, target: str, options: dict[str, str], message: str) -> None:
    (folder / "jm_bad.py").write_text("import os\ndef infer(:\n")
    (folder / "jm_script.py").write_text("import sys\ndef infer(): ...\nsys.exit(0)\n")
    (folder / "jm_needy.py").write_text("import jm_no_such\n")
    (folder / "jm_pack").mkdir()
    (folder / "jm_pack" / "__init__.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=message) as caught:
        python.create(target, options).prepare()
    assert caught.value.exit_code == 2


def test_a_file_that_failed_can_be_corrected(folder: Path) -> None:
    file = folder / "jm_fixed.py"
    file.write_text("1 / 0")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        python.create("jm_fixed.py:infer", {}).prepare()
    file.write_text("def infer(): ...")
    python.create("jm_fixed.py:infer", {}).run(1)


def test_no_windows_measure_nothing(folder: Path) -> None:
    with pytest.raises(JouleMeterError, match="measure nothing"):
        python.create("jm_model:infer", {}).run(0)
