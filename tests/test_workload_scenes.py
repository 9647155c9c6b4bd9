"""What goes wrong with a workload, from the command line: the error's name, its exit code, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[1] / "profiles" / "models"
DENSE = str(MODELS / "dense1-float32.tflite")
METER = ("--meter", "ppk2", "--simulate", "--supply", "3V")
ALONE = ("--meter", "none")
BOARD = (*METER, "--workload", "mlperf-tiny@simulated", "--workload-set", "window=0.3s", "--board-set")

RAISES = """
import time
calls = 0
def infer():
    global calls
    calls += 1
    time.sleep(0.12)
    if calls > 16:
        raise RuntimeError("the camera is gone")
"""


# Three times five real numbers, as numpy writes them.
NUMBERS = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }".ljust(127) + b"\n" + bytes(60)
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`kept`: whether a recording has to be there afterwards. `result`: whether windows before it became a result."""

    arguments: tuple[str, ...]
    code: int
    says: str
    kept: bool = False
    result: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


SCENES = {
    "model missing": Scene(
        arguments=(*METER, "--workload", "tflite:no-such.tflite"), code=2, says="There is no model no-such.tflite"
    ),
    "model corrupt": Scene(
        arguments=(*METER, "--workload", "tflite:bad.tflite"),
        code=2,
        says="bad.tflite is not a TensorFlow Lite model",
        files={"bad.tflite": b"TFL3" * 1000},
    ),
    "wrong input shape": Scene(
        arguments=(*ALONE, "--workload", f"tflite:{DENSE}", "--input", "x.npy"),
        code=2,
        says="(3, 5)",
        files={"x.npy": NUMBERS},
    ),
    "unknown option": Scene(
        arguments=(*ALONE, "--workload", f"tflite:{DENSE}", "--workload-set", "delegat=x"), code=2, says="delegate"
    ),
    "unknown delegate": Scene(
        arguments=(*ALONE, "--workload", f"tflite:{DENSE}", "--delegate", "libnowhere.so.1"),
        code=2,
        says="libnowhere.so.1",
    ),
    "delegate does not load": Scene(
        arguments=(*ALONE, "--workload", f"tflite:{DENSE}", "--delegate", "./text.so"),
        code=2,
        says="text.so",
        files={"text.so": b"this is no library"},
    ),
    "board silent": Scene(arguments=(*BOARD, "fault=silent"), code=6, says="baud", kept=True),
    "board answers with an error": Scene(arguments=(*BOARD, "fault=lost"), code=6, says="e-[", kept=True),
    "garbage on the line": Scene(arguments=(*BOARD, "fault=garbage"), code=0, says="", kept=True, result=True),
    "port missing": Scene(
        arguments=(*METER, "--workload", "mlperf-tiny@/dev/no-such-port"), code=3, says="/dev/no-such-port"
    ),
    "ssh refused": Scene(
        arguments=(*METER, "--workload", "tflite:ssh://127.0.0.1:9/x.tflite"), code=3, says="refuses SSH connections"
    ),
    "callable raises": Scene(
        arguments=(*METER, "--workload", "python:boom.py:infer"),
        code=6,
        says="RuntimeError: the camera is gone",
        kept=True,
        result=True,
        files={"boom.py": RAISES.encode()},
    ),
    "callable missing": Scene(
        arguments=(*METER, "--workload", "python:boom.py:infr"),
        code=2,
        says="infer",
        files={"boom.py": RAISES.encode()},
    ),
    "command fails": Scene(
        arguments=(*METER, "--", "sh", "-c", "sleep 0.3; exit 3"), code=6, says="exit code 3", kept=True
    ),
    "command missing": Scene(arguments=(*METER, "--", "no-such-command"), code=2, says="no-such-command"),
    "edge missing": Scene(
        arguments=(*METER, "--workload", "python:boom.py:infer", "--edge", "rts:/dev/no-such-port"),
        code=3,
        says="/dev/no-such-port",
        files={"boom.py": RAISES.encode()},
    ),
    "edge nonsense": Scene(
        arguments=(*METER, "--workload", "python:boom.py:infer", "--edge", "led:1"),
        code=2,
        says="not an edge line",
        files={"boom.py": RAISES.encode()},
    ),
    "edge for a board": Scene(
        arguments=(*METER, "--workload", "mlperf-tiny@simulated", "--edge", "rts:loop://"),
        code=2,
        says="Leave --edge out",
    ),
    "simulated board on a real meter": Scene(
        arguments=("--meter", "ppk2", "--workload", "mlperf-tiny@simulated"),
        code=2,
        says="does not see a simulated board",
    ),
    "board option unknown": Scene(arguments=(*BOARD, "fualt=silent"), code=2, says="fault"),
    "no simulated board": Scene(
        arguments=(*METER, "--workload", "python@simulated"), code=2, says="has no simulated board"
    ),
    "a form that the meter cannot show": Scene(
        arguments=("--meter", "lpm01a", "--simulate", "--supply", "3V", "--trigger", "d7"), code=2, says="d7:falling"
    ),
    "kind unknown": Scene(arguments=(*METER, "--workload", "tflit:x"), code=2, says="tflite"),
    "two workloads": Scene(
        arguments=(*METER, "--workload", "tflite:x.tflite", "--", "sleep", "1"), code=2, says="exclude each other"
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]
    for file, content in scene.files.items():
        (tmp_path / file).write_bytes(content)
    end = scene.arguments.index("--") if "--" in scene.arguments else len(scene.arguments)
    options, command = scene.arguments[:end], scene.arguments[end:]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "joulemeter", "measure", *options, "-o", "out", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.returncode == scene.code, said
    assert scene.says in said
    recordings = list(tmp_path.glob("out/*/ppk2/words.raw"))
    assert bool(recordings) == scene.kept, said
    assert bool(list(tmp_path.glob("out/*/result.json"))) == scene.result


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
def test_a_simulated_board_on_a_port_says_so_also_when_the_run_breaks_off(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "joulemeter"]
    options = ("--pty", "--until-eof", "--board-set", "baud=115200", "--board-set", "fault=hang")
    with subprocess.Popen(
        [*command, "simulate", "mlperf-tiny", *options, "--load", "8mA/5ms/d0,250uA/1ms"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as board:
        port = board.stdout.readline().strip() if board.stdout else ""
        done = subprocess.run(
            [*command, "measure", *ALONE, "--workload", f"mlperf-tiny@{port},115200", "-o", "out"]
            + [word for name in ("n=20", "window=0.1s") for word in ("--workload-set", name)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if board.stdin is not None:
            board.stdin.close()
    assert done.returncode == 6, done.stderr
    (events,) = tmp_path.glob("out/*/events.jsonl")
    assert '"simulated":true' in events.read_text()
