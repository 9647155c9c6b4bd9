from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import Spec, cpu_governor, cpu_model, parse, tflite
from joulemeter.workload.stamping import stamp

MODELS = Path(__file__).parents[2] / "shared" / "data" / "models"
REFERENCE = [
    "ad01_int8",
    "kws_ref_model",
    "kws_ref_model_float32",
    "pretrainedResnet",
    "pretrainedResnet_quant",
    "str_ww_ref_model",
    "vww_96_float",
    "vww_96_int8",
]
WEIGHTS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
BIAS = np.array([0.5, -0.25, 0.0, 2.0], dtype=np.float32)


def dense(*, custom: str | None = None, input_type: str = "FLOAT32", input_shape: tuple[int, ...] = (1, 8)) -> bytes:
    """y = x W^T + b as a .tflite file, field by field; `custom` puts an operator of that name in its place."""
    flatbuffers = pytest.importorskip("flatbuffers")
    s = pytest.importorskip("ai_edge_litert.schema_py_generated")

    def buffer(values: NDArray[np.float32] | None = None) -> Any:
        table = s.BufferT()
        table.data = None if values is None else np.frombuffer(values.tobytes(), dtype=np.uint8)
        return table

    def tensor(name: str, shape: tuple[int, ...], buffer_index: int, kind: str = "FLOAT32") -> Any:
        table = s.TensorT()
        table.name, table.shape, table.buffer, table.type = name, list(shape), buffer_index, getattr(s.TensorType, kind)
        table.hasRank = True
        return table

    operator_code = s.OperatorCodeT()
    operator_code.builtinCode = s.BuiltinOperator.CUSTOM if custom else s.BuiltinOperator.FULLY_CONNECTED
    operator_code.deprecatedBuiltinCode = operator_code.builtinCode
    operator_code.customCode = custom
    operator_code.version = 1
    operator = s.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    if not custom:
        operator.builtinOptionsType = s.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = s.FullyConnectedOptionsT()
    graph = s.SubGraphT()
    # Buffer 0 is empty by convention: tensors that are computed refer to it.
    graph.tensors = [
        tensor("x", input_shape, 0, input_type),
        tensor("W", WEIGHTS.shape, 1),
        tensor("b", BIAS.shape, 2),
        tensor("y", (1, 4), 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    model = s.ModelT()
    model.version = 3
    model.operatorCodes, model.subgraphs = [operator_code], [graph]
    model.buffers = [buffer(), buffer(WEIGHTS), buffer(BIAS)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "dense.tflite"
    path.write_bytes(dense())
    return path


def reference(name: str) -> Path:
    path = MODELS / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the MLPerf Tiny reference models are not here")
    return path


# --- what a workload is called


def test_parse() -> None:
    assert parse("tflite:/models/a b,c:1.tflite") == Spec(kind="tflite", target="/models/a b,c:1.tflite")
    assert parse("mlperf-tiny@/dev/ttyACM0") == Spec(kind="mlperf-tiny", target="/dev/ttyACM0")
    assert parse("command") == Spec(kind="command")
    assert parse("tflite:m", {"threads": "2"}).options == {"threads": "2"}
    for text in ("", "model.tflite", ":file", "tflite:", "Tf lite:x"):
        with pytest.raises(UsageError, match="is not a workload"):
            parse(text)


def test_create_takes_options_as_text(model: Path) -> None:
    options = {"threads": "2", "batch": "3", "seed": "7", "runtime": "litert"}
    workload = tflite.create(str(model), options)
    described = workload.describe()
    assert (described["threads"], described["batch"], described["seed"]) == (2, 3, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": "2"}, r"no option 'thread'\. Did you mean threads\?"),
        ({"qq": "2"}, r"no option 'qq'\. It takes batch, runtime, seed, threads"),
        ({"threads": "0"}, r"threads cannot be '0'\. .*at least 1"),
        ({"batch": "many"}, r"batch cannot be 'many'"),
        ({"seed": "-1"}, r"seed cannot be '-1'"),
    ],
)
def test_create_refuses(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tflite.create("m.tflite", options)


def test_create_needs_a_file() -> None:
    with pytest.raises(UsageError, match="needs a model"):
        tflite.create("", {})


# --- stamps


@pytest.mark.parametrize("per_window", [1, 3])
def test_stamps_enclose_exactly_the_calls(per_window: int) -> None:
    """A fake model that notes the clock at each call: each note lies in its own window and in no other."""
    notes: list[int] = []
    before = time.monotonic_ns()
    stamps = stamp(lambda: notes.append(time.monotonic_ns()), 50, per_window)
    after = time.monotonic_ns()
    assert stamps.begin_ns.dtype == stamps.end_ns.dtype == np.int64
    assert len(stamps) == stamps.begin_ns.size == stamps.end_ns.size == 50
    assert stamps.inferences_per_window == per_window
    called = np.array(notes).reshape(50, per_window)
    assert np.all(stamps.begin_ns <= called[:, 0])
    assert np.all(called[:, -1] <= stamps.end_ns)
    assert np.all(stamps.end_ns[:-1] <= stamps.begin_ns[1:])
    assert before <= stamps.begin_ns[0]
    assert stamps.end_ns[-1] <= after


def test_stamps_are_on_the_clock_of_other_processes() -> None:
    """CLOCK_MONOTONIC counts from the same moment in every process."""
    ask = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC))"
    begin = stamp(lambda: None, 1).begin_ns[0]
    other = int(subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, text=True).stdout)
    end = stamp(lambda: None, 1).end_ns[0]
    assert begin < other < end


def test_collector_is_off_in_the_loop_and_restored() -> None:
    states: list[bool] = []
    assert gc.isenabled()
    stamp(lambda: states.append(gc.isenabled()), 2)
    assert gc.isenabled()

    def fail() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        stamp(fail, 1)
    assert gc.isenabled()
    gc.disable()
    try:
        stamp(lambda: states.append(gc.isenabled()), 1)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert states == [False] * 3


@pytest.mark.parametrize(("count", "per_window"), [(0, 1), (1, 0), (-1, 1)])
def test_nothing_to_stamp(count: int, per_window: int) -> None:
    with pytest.raises(UsageError, match="measure nothing"):
        stamp(lambda: None, count, per_window)


# --- the runtime


def test_output_agrees_with_numpy(model: Path) -> None:
    workload = tflite.Tflite(model, seed=3)
    workload.run(1)
    (x,), (y,) = workload.inputs(), workload.outputs()
    assert x.shape == (1, 8)
    assert np.all((x >= 0) & (x < 1))
    np.testing.assert_allclose(y, x @ WEIGHTS.T + BIAS, rtol=1e-5)


def test_batch_and_seed(model: Path) -> None:
    workload = tflite.Tflite(model, batch=32, seed=1)
    assert workload.describe()["batch"] == 32
    workload.run(2)
    (x,), (y,) = workload.inputs(), workload.outputs()
    assert (x.shape, y.shape) == ((32, 8), (32, 4))
    np.testing.assert_allclose(y, x @ WEIGHTS.T + BIAS, rtol=1e-5)
    assert np.array_equal(tflite.Tflite(model, batch=32, seed=1).inputs()[0], x)
    assert not np.array_equal(tflite.Tflite(model, batch=32, seed=2).inputs()[0], x)


def test_warm_up_is_not_stamped(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tflite.Tflite(model)
    workload.prepare()
    calls = 0
    interpreter: Any = workload._interpreter
    invoke: Callable[[], None] = interpreter.invoke

    def counted() -> None:
        nonlocal calls
        calls += 1
        invoke()

    monkeypatch.setattr(interpreter, "invoke", counted)
    workload.warm_up(5)
    assert calls == 5
    warm_ns = time.monotonic_ns()
    stamps = workload.run(20, 4)
    assert calls == 5 + 20 * 4
    assert len(stamps) == 20
    assert stamps.begin_ns[0] >= warm_ns
    assert np.all(stamps.begin_ns < stamps.end_ns)


def test_describe(model: Path) -> None:
    described = tflite.Tflite(model).describe()
    version = described.pop("version")
    assert isinstance(version, str)
    assert version[0].isdigit()
    assert described == {
        "runtime": "ai-edge-litert",
        "delegate": None,
        "threads": 1,
        "model": "dense.tflite",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "batch": 1,
        "cpu": cpu_model(),
        "governor": cpu_governor(),
        "seed": 0,
    }


def test_prepare_and_close_may_be_called_twice_and_stdout_stays_clean(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workload = tflite.Tflite(model)
    workload.prepare()
    first = workload._interpreter
    workload.prepare()
    assert workload._interpreter is first
    workload.run(1)
    workload.close()
    workload.close()
    assert capfd.readouterr().out == ""


def test_import_brings_no_runtime() -> None:
    ask = (
        "import sys, joulemeter.workload.tflite\n"
        "print([n for n in ('ai_edge_litert', 'tflite_runtime', 'tensorflow') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


# --- the reference models


@pytest.mark.outside
@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("batch", [None, 4])
def test_reference_models_run(name: str, batch: int | None) -> None:
    workload = tflite.Tflite(reference(name), batch=batch)
    workload.warm_up(2)
    stamps = workload.run(5, 2)
    assert len(stamps) == 5
    assert np.all(stamps.begin_ns < stamps.end_ns)
    assert workload.describe()["batch"] == (batch or 1)
    (x,) = workload.inputs()
    if x.dtype == np.int8:
        assert x.min() < -100
        assert x.max() > 100, "drawn from the whole range of int8"
    # Softmax and the autoencoder alike answer with more than one value.
    assert all(y.shape[0] == (batch or 1) and np.unique(y).size > 1 for y in workload.outputs())
    workload.close()


# --- what can be wrong


def test_missing_and_unreadable_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no model .*absent\.tflite"):
        tflite.Tflite(tmp_path / "absent.tflite").prepare()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        tflite.Tflite(tmp_path).prepare()


def test_damaged_models(tmp_path: Path) -> None:
    """Every truncation, noise, and noise with the right identifier: an error, never a crash."""
    whole = dense()
    noise = np.random.default_rng(0).bytes(5000)
    path = tmp_path / "damaged.tflite"
    for content in (*(whole[:size] for size in range(0, len(whole) - 8, 37)), noise, noise[:4] + b"TFL3" + noise[8:]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"damaged\.tflite is not a TensorFlow Lite model"):
            tflite.Tflite(path).prepare()


@pytest.mark.parametrize("body", ["os.abort()", "raise ValueError('not mine')", "pass"])
def test_runtime_that_does_not_verify_is_tried_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, body: str
) -> None:
    """A runtime that crashes must not take this process with it; one that refuses the model is heard here."""
    (tmp_path / "careless.py").write_text(
        "import os\n"
        "class Interpreter:\n"
        "    def __init__(self, **options):\n"
        f"        {body}\n"
        "    def allocate_tensors(self): pass\n"
        "    def get_input_details(self): return []\n"
        "    def get_output_details(self): return []\n"
        "    def invoke(self): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    careless = tflite.Runtime(
        package="careless", module="careless", interpreter="Interpreter", distribution="careless-runtime"
    )
    monkeypatch.setitem(tflite.RUNTIMES, "careless", careless)
    monkeypatch.delitem(sys.modules, "careless", raising=False)
    workload = tflite.Tflite(model, runtime="careless")
    if body == "pass":
        workload.prepare()
    else:
        with pytest.raises(UsageError, match=r"careless-runtime can load: (it crashes on it|not mine)\."):
            workload.prepare()
    monkeypatch.delitem(sys.modules, "careless", raising=False)


def test_custom_operator(tmp_path: Path) -> None:
    path = tmp_path / "custom.tflite"
    path.write_bytes(dense(custom="FrobnicateV2"))
    with pytest.raises(UsageError, match=r"cannot be prepared by this runtime: .*custom op: FrobnicateV2"):
        tflite.Tflite(path).prepare()


def test_operator_that_refuses_its_input(tmp_path: Path) -> None:
    path = tmp_path / "text.tflite"
    path.write_bytes(dense(input_type="STRING"))
    with pytest.raises(UsageError, match=r"cannot be prepared by this runtime: .*STRING"):
        tflite.Tflite(path).prepare()


def test_text_input_cannot_be_drawn() -> None:
    text = {"name": "sentence", "dtype": np.bytes_, "shape": np.array([1])}
    with pytest.raises(UsageError, match=r"input 'sentence' of m holds .*cannot be filled"):
        tflite.Tflite(Path("m"))._random(text, np.random.default_rng(0))


def test_batch_that_does_not_fit(tmp_path: Path) -> None:
    """The only dimension of this input is its features: three of them do not multiply with weights for eight."""
    path = tmp_path / "flat.tflite"
    path.write_bytes(dense(input_shape=(8,)))
    tflite.Tflite(path).run(1)
    with pytest.raises(UsageError, match=r"flat\.tflite cannot run with a batch of 3: .* Leave the batch out"):
        tflite.Tflite(path, batch=3).prepare()


def test_scalar_input_has_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "scalar.tflite"
    path.write_bytes(dense(input_shape=()))
    with pytest.raises(UsageError, match="has no batch"):
        tflite.Tflite(path, batch=2).prepare()


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("int8", -128, 127), ("uint8", 0, 255), ("int16", -32768, 32767), ("uint16", 0, 65535),
        ("int32", 0, 1), ("int64", 0, 1), ("bool", 0, 1),
    ],
)  # fmt: skip
def test_inputs_are_drawn_over_their_range(kind: str, low: int, high: int) -> None:
    drawn = tflite.Tflite(Path("m"))._random(
        {"name": "x", "dtype": np.dtype(kind).type, "shape": np.array([1000, 1000])}, np.random.default_rng(0)
    )
    assert (drawn.dtype, drawn.shape) == (np.dtype(kind), (1000, 1000))
    assert (int(drawn.min()), int(drawn.max())) == (low, high)


def test_no_runtime_installed(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    for runtime in tflite.RUNTIMES.values():
        monkeypatch.setitem(sys.modules, runtime.package, None)
    with pytest.raises(MissingExtraError, match="pip install 'ai-edge-litert'") as caught:
        tflite.Tflite(model).prepare()
    assert caught.value.exit_code == 7
    with pytest.raises(MissingExtraError, match="pip install 'tflite-runtime'"):
        tflite.Tflite(model, runtime="tflite-runtime").prepare()
    with pytest.raises(UsageError, match=r"no TensorFlow Lite runtime 'onnx'\. Known are litert"):
        tflite.Tflite(model, runtime="onnx").prepare()


def test_the_next_runtime_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("tflite_runtime")
    stand_in.__spec__ = ModuleSpec("tflite_runtime", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", stand_in)
    assert tflite.choose_runtime(None).distribution == "tflite-runtime"


# --- the host


def test_cpu_model_and_governor(tmp_path: Path) -> None:
    assert cpu_model(tmp_path) is None
    assert cpu_governor(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Cortex-X\nmodel\t: 3\n")
    assert cpu_model(tmp_path) == "Cortex-X"
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 4 Model B\n")
    assert cpu_model(tmp_path) == "Raspberry Pi 4 Model B"
    for index, governor in enumerate(("powersave", "performance", "powersave")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{index}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")
    assert cpu_governor(tmp_path) == "performance+powersave"
