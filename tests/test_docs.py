"""Documents: what they show is run, and every link leads somewhere.

A command runs as it stands, in a folder that holds what the reader is supposed to have, after RULES have
put a simulator in place of the meter and made it short. What cannot run is in ELSEWHERE with its reason, and is parsed.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import docs_runner
import numpy as np
import pytest
import typer.main

from joulemeter import pytest_plugin, registry
from joulemeter.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTES = [*sorted((ROOT / "instruments").glob("*/notes.md")), *sorted((ROOT / "results").glob("*/*.md"))]
THIRD_PARTY = ROOT / "tests" / "third_party"
WORKERS = 3

# First words of a line that is a command; anything else in a block is output, a drawing or data.
PROGRAMS = {
    *("joulemeter", ".venv/bin/pip", "pip", "python", "python3", "pytest", "ssh", "sudo", "mkdir", "cp", "cat", "make"),
    *("git", "apt", "apt-get", "modprobe", "echo", "./bench"),
}

# How a command is made to run on this machine: what is replaced, by what, and why. From the first to the last.
RULES = [
    # Another machine, a port, a pin: this one, a simulated board, none.
    (r"(--meter [a-z0-9_]+)@\S+", r"\1", "a simulator has no address"),
    (r"tflite:ssh://\S+|python:ssh://\S+", "python:bench.py:infer", "this machine stands for the other one"),
    (r"--workload command:ssh://\S+ ", "", "the same"),
    (r"(mlperf-tiny|uart)@\S+", r"\1@simulated", "a simulated board"),
    (r" --trigger d0(?=.* --edge)", "", "there is no pin, so no meter sees it"),
    (r"--edge \S+", "--inferences-per-window 1", "there is no pin: stamps"),
    (r"--delegate \S+ ", "", "there is no accelerator"),
    (r"_edgetpu\.tflite", ".tflite", "the same"),
    (r" \| cat$", "", "nothing here is a terminal"),
    # As few windows as make a result, as short as the meter can tell.
    (r"--windows \d+", "--windows 3", "short"),
    (r"(meter um25c .*per-window) \d+", r"\1 18", "1.8 s, three of its readings"),
    (r"(meter (?:nvml|rpi_pmic) .*per-window) \d+", r"\1 12", "1.2 s"),
    (r"(python:.*per-window) (?!18|12)\d+", r"\1 6", "0.6 s"),
    (r"(tflite:.*per-window) \d+", r"\1 2500", "0.4 s"),
    (r"((?:onnx|tflite|python):\S+)(?!.*--windows)", r"\1 --windows 3", "short"),
    (r"--warmup \d+", "--warmup 2", "short"),
    (r"--baseline \d+s", "--baseline 1s", "short"),
    (r"--duration \S+", "--duration 2s", "short"),
    (r"watch (?!.*--duration)", "watch --duration 1s ", "it ends only when it is told to"),
    (r"(mlperf-tiny@simulated)", r"\1 --workload-set window=1s --workload-set n=40 --windows 1", "a second, not ten"),
    (r"(--rig mlperf-tiny-l4r5zi)", r"\1 --workload-set window=1s --workload-set n=20 --windows 1", "the same"),
    (r"(--phase pre=d1)", r"\1 --load 3mA/5ms/d1,8mA/20ms/d0,250uA/75ms", "a load with that line"),
    (r"(--rig stm32f4-\w+)", r"\1 --windows 3", "short"),
    (r"(--rig (?:pi-4b|coral-usb-notebook) --simulate)", r"\1 --load 1A/400ms,300mA/300ms --duration 5s", "short"),
    (r"(--rig h100-sxm --simulate)", r"\1 --load 40A/800ms,6A/600ms --duration 9s", "short"),
]
# These take part in nothing without a meter; the rest of the commands have no --simulate.
METERED = {"measure", "record", "watch", "calibrate"}

# Not run, and why; a joulemeter command is still parsed with its own options. As it stands, page by page.
ELSEWHERE = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/joulemeter demo": "test_cli.py runs the demo",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/python -m pytest": "CI begins with it",
    "python3 -m venv .venv": "installs",
    ".venv/bin/pip install joulemeter": "installs",
    "pip install 'joulemeter[nvidia]'": "installs",
    "pip install -e .": "installs; tests/test_third_party.py lays the package out as an installer does",
    "joulemeter measure --meter bench --simulate --trigger shape --duration 9s": "tests/test_third_party.py runs it",
    "joulemeter conform bench --simulate": "tests/test_third_party.py runs it",
    "joulemeter conform bench@/dev/ttyACM0": "a real port",
    "joulemeter conform ppk2@PORT": "a real port",
    "pytest": "these tests",
    'pytest -m "not outside"': "these tests",
    "pytest tests/test_contract.py": "these tests",
    "pytest tests/test_mlperf_tiny.py": "these tests",
    "pytest tests/test_docs.py": "these tests",
    "python tests/bench_ppk2_decode.py": "a bench of its own",
    "ssh HOST rm -r .cache/joulemeter": "another machine; tests/test_workload_remote.py has one",
    "make flash": "the reader's own board",
    'echo "$PWD/.venv/bin" >> "$GITHUB_PATH"': "GitHub's runner",
    'cat check.md >> "$GITHUB_STEP_SUMMARY"': "GitHub's runner",
}

# Exit code of a recording of which nothing could be used.
NOTHING_MEASURED = 5

# Options in running text that are no option of joulemeter's or of its pytest plug-in.
FOREIGN_OPTIONS = {"--help", "--version", "--device"}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str | None
    text: str


@dataclass(frozen=True)
class Command:
    page: Path
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks with their language, and blocks that are indented by four spaces or more."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = re.fullmatch(r"(\s*)```(\w*)", lines[at])
        start = at
        if fence:
            at += 1
            while not lines[at].strip().startswith("```"):
                at += 1
            kept, language = lines[start + 1 : at], fence[2] or None
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            kept, language = lines[start:at], None
            at -= 1
        else:
            at += 1
            continue
        yield Block(page=page, line=start + 1, language=language, text=textwrap.dedent("\n".join(kept)).rstrip() + "\n")
        at += 1


def commands(page: Path) -> Iterator[Command]:
    for block in blocks(page):
        if block.language not in (None, "sh", "yaml"):
            continue
        text = re.sub(r" *\\\n *", " ", block.text)
        for row in text.splitlines():
            line = re.sub(r"^(- )?run: ", "", row.strip())
            # Two spaces or more: what follows is said about the command.
            line = re.split(r"\s{2,}", line)[0]
            if line.split(" ")[0] in PROGRAMS:
                yield Command(page=page, line=block.line, text=line)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runnable(command: str) -> str:
    """The command as it runs here."""
    for pattern, replacement, _ in RULES:
        command = re.sub(pattern, replacement, command)
    words = shlex.split(command)
    plain, dashes, rest = command.partition(" -- ")
    real = "--meter" in words and words[words.index("--meter") + 1] != "none"
    if words[1] in METERED and (real or "--rig" in words) and "--simulate" not in words:
        plain += " --simulate"
    return plain + dashes + rest


ALL = [command for page in PAGES for command in commands(page)]
KINDS = {
    "run": [c for c in ALL if c.text not in ELSEWHERE and c.words[0] == "joulemeter" and c.words[1] != "simulate"],
    "serve": [c for c in ALL if c.text not in ELSEWHERE and c.words[:2] == ["joulemeter", "simulate"]],
    "files": [c for c in ALL if c.text not in ELSEWHERE and c.words[0] in ("mkdir", "cp")],
    "pytest": [c for c in ALL if c.text not in ELSEWHERE and c.words[0] == "pytest"],
}
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
QUOTED = [block for block in PYTHON if block.page.name == "write-a-driver.md"]
TESTS = [block for block in PYTHON if "def test_" in block.text]
SHOWN = [block for block in PYTHON if block not in QUOTED and block not in TESTS]


@cache
def application(command: str) -> Any:
    return typer.main.get_command(importlib.import_module(f"joulemeter.cli.{command}").app)


@cache
def settings() -> frozenset[str]:
    return frozenset(setting for _, module in registry.instruments() for setting in module.INFO.settings)


def parse(text: str) -> None:
    """Parse without running. Raises typer's errors."""
    words = shlex.split(text, comments=True)
    found = application(words[1])
    below = getattr(found, "commands", None)
    if below is None:
        found.make_context(words[1], words[2:])
    else:
        below[words[2]].make_context(words[2], words[3:])


# --- what the reader has


def energy_runner(folder: Path) -> None:
    """A recording as EEMBC's EnergyRunner leaves it: five windows of 10 s, 100 inferences each, 30 mW in 10 mW."""
    folder.mkdir()
    stamps, samples_uj = [0.5], [10.0] * 1000
    for _ in range(5):
        begins = len(samples_uj)
        samples_uj += [30.0] * 10_000 + [10.0] * 2000
        stamps += [begins / 1000, begins / 1000 + 10]
    (folder / "trace1-energy.bin").write_bytes(
        b"\xf1" + struct.pack("<f", 1000.0) + np.array(samples_uj, "<f4").tobytes()
    )
    (folder / "trace1-timestamps.json").write_text(json.dumps(stamps))
    (folder / "results.txt").write_text("")


def onnx_model(path: Path) -> None:
    """One layer, as far as there is a package to write it with."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        return
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 4]) for each in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def possessions(folder: Path, workers: ProcessPoolExecutor) -> None:
    """Every file that a page names as the reader's, under that name."""
    words = shlex.split("measure --meter ppk2 --simulate --supply 3.0V --trigger d0 --windows 10 -o .")
    making = {"RUN": "3mA/20ms/d0,1uA/80ms", "OTHER": "4mA/20ms/d0,1uA/80ms"}
    for made in making:
        (folder / "making" / made).mkdir(parents=True)
    begun = {
        made: workers.submit(docs_runner.command, [*words, "--load", load], str(folder / "making" / made))
        for made, load in making.items()
    }
    for made, done in begun.items():
        assert done.result().code == 0, done.result().err
        (run,) = (folder / "making" / made).iterdir()
        run.rename(folder / made)
    for copy in (
        "results/2026-11-20T20-41-26Z-ppk2",
        "results/new",
        "energy/baseline",
        "runs/2026-11-20T20-41-26Z-kernel",
    ):
        shutil.copytree(folder / "RUN", folder / copy)
    energy_runner(folder / "FOLDER")
    for model in ("model.tflite", "kws.tflite"):
        shutil.copy(ROOT / "profiles" / "models" / "mobilenet-cifar10-float32.tflite", folder / model)
    for model in ("model.onnx", "net.onnx"):
        onnx_model(folder / model)
    for program in ("bench", "infer"):
        (folder / program).write_text("#!/bin/sh\nsleep 0.3\n")
        (folder / program).chmod(0o755)
    (folder / "bench.py").write_text("import time\n\n\ndef infer():\n    time.sleep(0.1)\n")
    (folder / "load.toml").write_text(next(b.text for b in blocks(ROOT / "docs/battery.md") if b.language == "toml"))
    for index in range(5):
        (folder / "inputs/kws01").mkdir(parents=True, exist_ok=True)
        (folder / f"inputs/kws01/{index}.bin").write_bytes(bytes([index]) * 490)
        (folder / "digits").mkdir(exist_ok=True)
        np.save(folder / f"digits/{index}.npy", np.full((1, 4), index, np.float32))


def globbed(folder: Path, word: str) -> list[str]:
    """What a shell makes of a word."""
    found = sorted(folder.glob(word)) if "*" in word else []
    return [str(path.relative_to(folder)) for path in found] or [word]


class Reader:
    """Gives each command a folder with what it names, and runs each different command once, in the background."""

    def __init__(self, home: Path, workers: ProcessPoolExecutor) -> None:
        self._home, self._workers = home, workers
        self._begun: dict[str, Future[docs_runner.Done]] = {}
        self._shown: dict[Block, Future[docs_runner.Done]] = {}
        self._had = home / "had"
        self._had.mkdir()
        possessions(self._had, workers)

    def folder(self, text: str) -> Path:
        folder = self._home / f"{len(list(self._home.iterdir()))}"
        folder.mkdir()
        for each in self._had.iterdir():
            if re.search(rf"\b{re.escape(each.name)}\b", text):
                shutil.copytree(each, folder / each.name) if each.is_dir() else shutil.copy(each, folder / each.name)
        return folder

    def begin(self, text: str) -> None:
        if text not in self._begun:
            folder = self.folder(text)
            words = [found for word in shlex.split(text) for found in globbed(folder, word)]
            self._begun[text] = self._workers.submit(docs_runner.command, words[1:], str(folder))

    def ran(self, text: str) -> docs_runner.Done:
        """What it came to. A busy host may lose readings of a meter that is polled: then once more, alone."""
        self.begin(text)
        done = self._begun[text].result(timeout=100)
        if done.code != NOTHING_MEASURED:
            return done
        words = [sys.executable, "-m", *shlex.split(text)]
        alone = subprocess.run(words, cwd=self.folder(text), capture_output=True, text=True, timeout=60, check=False)
        return docs_runner.Done(alone.returncode, alone.stdout, alone.stderr)

    def show(self, block: Block) -> None:
        source = block.text.replace("range(1000)", "range(10)").replace('"5s"', '"1s"')
        self._shown[block] = self._workers.submit(docs_runner.block, source, str(self.folder("")))

    def showed(self, block: Block) -> docs_runner.Done:
        if block not in self._shown:
            self.show(block)
        return self._shown[block].result(timeout=100)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Reader]:
    workers = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))
    reader = Reader(tmp_path_factory.mktemp("reader"), workers)
    # All that will be asked for is begun at once, so that what waits for a simulated meter waits together.
    for item in request.session.items:
        asked = item.callspec.params if hasattr(item, "callspec") else {}
        if asked.get("command") in KINDS["run"] and "runs" in item.name:
            reader.begin(runnable(asked["command"].text))
        elif asked.get("block") in SHOWN:
            reader.show(asked["block"])
    yield reader
    workers.shutdown(cancel_futures=True)


def place(thing: Command | Block) -> str:
    text = thing.text if isinstance(thing, Command) else thing.language
    return f"{name(thing.page)}:{thing.line}: {text}"


# --- commands


@pytest.mark.parametrize("command", KINDS["run"], ids=place)
def test_a_command_runs(reader: Reader, command: Command) -> None:
    if "onnx" in command.text:
        pytest.importorskip("onnxruntime")
    done = reader.ran(runnable(command.text))
    assert done.code == 0, f"{runnable(command.text)}\n{done.err}"
    assert done.out or "-o" in command.words or "--output" in command.words
    if command.words[1] in ("measure", "watch", "calibrate") and "none" not in command.words:
        assert "simulated" in done.out.lower() or "mlperf" in command.words


@pytest.mark.parametrize("command", KINDS["serve"], ids=place)
def test_a_simulator_serves(command: Command) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", *command.words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as served:
        assert served.stdout is not None
        address = served.stdout.readline().strip()
        try:
            if address.startswith("/"):
                assert Path(address).exists()
            else:
                assert re.search(r"\d", address), address
        finally:
            served.send_signal(signal.SIGINT)
        assert "energy" in served.stdout.read()
        assert served.wait(20) == 0


@pytest.mark.parametrize("command", KINDS["files"], ids=place)
def test_files_are_where_the_page_says(reader: Reader, command: Command) -> None:
    folder = reader.folder(command.text)
    subprocess.run(command.words, cwd=folder, check=True, timeout=20)


def test_the_tests_shown_hold_what_they_measured(tmp_path: Path) -> None:
    """The same test and the same two commands, on each page that shows them."""
    (shown,) = {block.text for block in TESTS}
    (first, second) = dict.fromkeys(command.text for command in KINDS["pytest"])
    # The baseline is slower than what follows, so that no busy host makes a regression.
    stand_in = "import sys, time\nclass interpreter:\n    def invoke():\n        time.sleep(WAIT)\n"
    stand_in += "WAIT = 0.15 if '--energy-update' in sys.argv else 0.1\n"
    shown = shown.replace("range(200)", "range(6)")
    (tmp_path / "test_shown.py").write_text(stand_in + shown)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for text in (first, second):
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(text), "--energy-simulate", "--energy-load", "4mA/1s,3mA/1s"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("command", [c for c in ALL if c.words[0] == "joulemeter"], ids=place)
def test_a_command_is_parsed_as_it_stands(command: Command) -> None:
    assert command.words[1] in COMMANDS
    parse(command.text.partition(" | ")[0])


@pytest.mark.parametrize("page", NOTES, ids=name)
def test_commands_of_notes_are_parsed(page: Path) -> None:
    for command in commands(page):
        if command.words[0] == "joulemeter":
            parse(command.text)


def test_every_command_has_a_rule() -> None:
    ruled = {command for kind in KINDS.values() for command in kind}
    without = [place(command) for command in ALL if command not in ruled and command.text not in ELSEWHERE]
    assert not without, "say in ELSEWHERE why it cannot run"


def test_no_rule_is_left_over() -> None:
    assert set(ELSEWHERE) <= {command.text for command in ALL}
    shown = [command.text for command in KINDS["run"]]
    for pattern, replacement, _ in RULES:
        assert any(re.search(pattern, text) for text in shown), pattern
        shown = [re.sub(pattern, replacement, text) for text in shown]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_is_missed(page: Path) -> None:
    """A call in a form that `commands` does not know would not be run."""
    text = "".join(re.sub(r" *\\\n *", " ", block.text) for block in blocks(page))
    calls = re.findall(rf"\bjoulemeter (?:{'|'.join(COMMANDS)})\b", text)
    assert len(calls) == sum("joulemeter " in command.text for command in commands(page))


# --- Python and C


@pytest.mark.parametrize("block", SHOWN, ids=place)
def test_a_block_of_python_runs(reader: Reader, block: Block) -> None:
    done = reader.showed(block)
    assert done.code == 0, done.err


@pytest.mark.parametrize("block", QUOTED, ids=place)
def test_the_driver_on_the_page_is_the_one_that_is_tested(block: Block) -> None:
    driver = (THIRD_PARTY / "bench_meter.py").read_text(encoding="utf-8")
    assert block.text in driver or textwrap.indent(block.text, "    ") in driver


def test_the_entry_point_on_the_page_is_the_one_that_is_tested() -> None:
    (shown,) = [block.text for block in blocks(ROOT / "docs/write-a-driver.md") if block.language == "toml"]
    assert shown in (THIRD_PARTY / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_firmware_uses_what_the_header_has(page: Path) -> None:
    header = (ROOT / "docs/firmware/joulemeter_trigger.h").read_text(encoding="utf-8")
    used = {
        word for block in blocks(page) if block.language == "c" for word in re.findall(r"\bj?JM?m?_\w+", block.text)
    }
    assert all(word in header for word in used), used


# --- words


def spans(page: Path) -> list[str]:
    """Code in running text."""
    text = page.read_text(encoding="utf-8")
    return [
        span.replace("\n", " ")
        for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]


@cache
def options() -> frozenset[str]:
    known = set(FOREIGN_OPTIONS)
    for command in COMMANDS:
        group = application(command)
        for each in (group, *getattr(group, "commands", {}).values()):
            known |= {option for parameter in each.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return frozenset(
        known | {f"--{row[0]}" for row in pytest_plugin.SETTINGS} | {"--energy-simulate", "--energy-update"}
    )


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=name)
def test_commands_and_options_in_running_text_exist(page: Path) -> None:
    for span in spans(page):
        if match := re.match(r"joulemeter ([a-z]+)(?: |$)", span):
            assert match[1] in COMMANDS, span
        if page in PAGES and re.match(r"joulemeter |--[a-z]", span):
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]+", span)) <= options(), span


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist(page: Path) -> None:
    """`--set NAME=...` names a setting of some meter."""
    for asked in re.findall(r"--set ([a-z]\w*(?:\.\w+)?)=", page.read_text(encoding="utf-8")):
        assert asked.rpartition(".")[2] in settings(), asked


# --- links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(r"(?:docs|tests|results/measured|instruments|joulemeter|profiles|\.ci)/[\w./-]+\.\w+", span):
            assert (ROOT / span).exists(), span


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert linked >= {page for page in PAGES if page.parent.name in ("docs", "firmware")} - {ROOT / "docs/index.md"}
    assert "docs/index.md" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- what is generated


def test_the_support_table_is_what_its_generator_prints() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs/support.py"], capture_output=True, text=True, check=True)
    assert (ROOT / "docs/support.md").read_text(encoding="utf-8") == made.stdout, (
        "python docs/support.py > docs/support.md"
    )
