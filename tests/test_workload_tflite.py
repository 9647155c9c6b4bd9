from __future__ import annotations

import gc
import hashlib
import importlib.util
import shutil
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
from joulemeter.workload import Spec, cpu_governor, cpu_model, inputs, parse, tflite
from joulemeter.workload.inputs import TensorSpec
from joulemeter.workload.stamping import stamp

ROOT = Path(__file__).parents[1]
MODELS = ROOT.parent / "shared" / "data" / "models"
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
        ({"qq": "2"}, r"no option 'qq'\. It takes batch, delegate, input, labels, phases, pixels, runtime, seed, thr"),
        ({"delegate": ""}, r"delegate cannot be ''\. Write PATH"),
        ({"delegate": "a.so,usb"}, r"delegate cannot be 'a\.so,usb'"),
        ({"xnnpack": "maybe"}, r"xnnpack cannot be 'maybe'\. It is on or off"),
        ({"phases": "all"}, r"phases cannot be 'all'\. It is io"),
        ({"pixels": "0..2"}, r"pixels cannot be '0\.\.2'\. It is 0\.\.1 or -1\.\.1 or 0\.\.255"),
        ({"labels": "f"}, r"labels belongs to inputs that are read"),
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
    session: Any = workload._session
    invoke: Callable[[], None] = session.invoke

    def counted() -> None:
        nonlocal calls
        calls += 1
        invoke()

    monkeypatch.setattr(session, "invoke", counted)
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
        "delegate": "XNNPACK",
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
    first = workload._session
    workload.prepare()
    assert workload._session is first
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


# --- what it is fed with


def labelled(folder: Path, count: int, wrong: int) -> tuple[Path, Path]:
    """Samples for the dense model and its own answers to them by numpy, the first `wrong` of them falsified."""
    x = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    classes = np.argmax(x @ WEIGHTS.T + BIAS, axis=1)
    classes[:wrong] = (classes[:wrong] + 1) % 4
    np.save(folder / "x.npy", x)
    (folder / "labels.txt").write_text("".join(f"{number}\n" for number in classes))
    return folder / "x.npy", folder / "labels.txt"


@pytest.mark.parametrize("batch", ["1", "7"])
def test_accuracy(model: Path, tmp_path: Path, batch: str) -> None:
    """Five of fifty labels are false; a batch that does not divide fifty counts no sample twice."""
    x, labels = labelled(tmp_path, 50, 5)
    workload = tflite.create(str(model), {"input": str(x), "labels": str(labels), "batch": batch})
    assert "accuracy" not in workload.describe()
    said: list[str] = []
    workload.ready(said.append)
    described = workload.describe()
    assert described["accuracy"] == {"top1": 0.9, "correct": 45, "of": 50}
    assert described["input"] == {"name": "x.npy", "count": 50}
    assert "seed" not in described
    assert said == ["45 of 50 samples are classified right"]
    workload.ready(said.append)
    assert len(said) == 1


def test_no_labels_no_accuracy(model: Path, tmp_path: Path) -> None:
    x, _ = labelled(tmp_path, 3, 0)
    workload = tflite.create(str(model), {"input": str(x)})
    workload.ready(print)
    assert "accuracy" not in workload.describe()


def test_each_window_takes_the_next_sample(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across calls of run, around the end, and set before the window and not in it."""
    x, _ = labelled(tmp_path, 3, 0)
    workload = tflite.create(str(model), {"input": str(x)})
    workload.prepare()
    session: Any = workload._session
    seen: list[tuple[int, NDArray[Any]]] = []
    filled: list[int] = []
    invoke, fill = session.invoke, session.fill

    def noted() -> None:
        seen.append((time.monotonic_ns(), workload.inputs()[0]))
        invoke()

    def noted_fill(values: Any) -> None:
        fill(values)
        filled.append(time.monotonic_ns())

    monkeypatch.setattr(session, "invoke", noted)
    monkeypatch.setattr(session, "fill", noted_fill)
    first, second = workload.run(2), workload.run(3, 2)
    assert first.phases == second.phases == {}
    order = [int(np.flatnonzero((np.load(x) == value[0]).all(axis=1))[0]) for _, value in seen]
    assert order == [0, 1, 2, 2, 0, 0, 1, 1]
    begins, ends = (
        np.concatenate([getattr(part, name) for part in (first, second)]) for name in ("begin_ns", "end_ns")
    )
    assert np.all(np.array(filled) <= begins)
    assert np.all(np.array(filled)[1:] >= ends[:-1])


def test_setting_and_taking_are_phases(model: Path) -> None:
    stamps = tflite.create(str(model), {"phases": "io"}).run(20, 2)
    assert list(stamps.phases) == ["set", "get"]
    (set_begin, set_end), (get_begin, get_end) = stamps.phases["set"], stamps.phases["get"]
    for earlier, later in (
        (set_begin, set_end), (set_end, stamps.begin_ns), (stamps.end_ns, get_begin), (get_begin, get_end),
        (get_end[:-1], set_begin[1:]),
    ):  # fmt: skip
        assert np.all(earlier <= later)


def test_an_edge_goes_around_each_window(model: Path) -> None:
    class Line:
        def __init__(self) -> None:
            self.up: list[int] = []
            self.down: list[int] = []

        def begin(self) -> None:
            self.up.append(time.monotonic_ns())

        def end(self) -> None:
            self.down.append(time.monotonic_ns())

    line = Line()
    workload = tflite.Tflite(model)
    workload.edges(line)
    workload.warm_up(3)
    stamps = workload.run(5)
    assert np.all(np.array(line.up) <= stamps.begin_ns)
    assert np.all(np.array(line.down) >= stamps.end_ns)
    assert len(line.up) == len(line.down) == 5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("0\n1\n", r"has 2 labels, but .*x\.npy has 3 samples"),
        ("0\n1\n4\n", r"There is a label 4, but .*dense\.tflite knows 4 classes\. Classes count from 0"),
        ("0\none\n2\n", r"Line 2 of .* is 'one'"),
    ],
)
def test_labels_that_do_not_fit(model: Path, tmp_path: Path, labels: str, message: str) -> None:
    x, path = labelled(tmp_path, 3, 0)
    path.write_text(labels)
    with pytest.raises(UsageError, match=message):
        tflite.create(str(model), {"input": str(x), "labels": str(path)}).ready(print)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_pictures_of_digits(tmp_path: Path, precision: str) -> None:
    """Class folders of PNG files are answered as LiteRT itself answers the pixels, divided by 255 and quantised."""
    path = ROOT / "profiles" / "models" / f"dense1-{precision}.tflite"
    digits = ROOT / "tests" / "data" / "digits.npz"
    if not path.exists() or not digits.exists():
        pytest.skip("the reference networks are not built")
    with np.load(digits) as held:
        images, labels = held["images"], held["labels"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        pytest.importorskip("PIL.Image").fromarray(image[:, :, 0]).save(folder / f"{number:02}.png")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    correct = 0
    for image, label in zip(images, labels, strict=True):
        # Both models are of pixels between 0 and 1: in int8 with the scale 1/255 and the zero point -128.
        fed = image / 255 if precision == "float32" else image.astype(int) - 128
        interpreter.set_tensor(takes["index"], fed.astype(takes["dtype"])[np.newaxis])
        interpreter.invoke()
        correct += int(interpreter.get_tensor(gives["index"]).argmax() == label)
    workload = tflite.create(str(path), {"input": str(tmp_path)})
    workload.ready(print)
    described = workload.describe()
    assert 0.8 * len(labels) < correct < len(labels), "a model that is good, and not beyond telling"
    assert described["accuracy"] == {"top1": correct / len(labels), "correct": correct, "of": len(labels)}
    assert described["input"] == {"name": tmp_path.name, "count": 50, "pixels": "0..1"}


@pytest.mark.outside
def test_floats_go_into_a_quantised_model() -> None:
    """The keyword spotter takes int8 of 49 x 10 cepstral coefficients: scale 0.58470291, zero point 83."""
    workload = tflite.create(str(reference("kws_ref_model")), {})
    (spec,) = tflite_inputs(workload)
    assert (spec.shape, spec.dtype.name, spec.zero_point) == ((1, 49, 10, 1), "int8", 83)
    assert spec.scale == pytest.approx(0.58470291, rel=1e-7)


def tflite_inputs(workload: tflite.Tflite) -> list[TensorSpec]:
    workload.prepare()
    session: Any = workload._session
    return list(session.inputs)


# --- the runtimes


def installed(name: str) -> str:
    if importlib.util.find_spec(tflite.RUNTIMES[name].package) is None:
        pytest.skip(f"the runtime {name} is not installed in this environment")
    return name


@pytest.mark.outside
@pytest.mark.parametrize("name", tflite.RUNTIMES)
@pytest.mark.parametrize("xnnpack", [None, "off"])
def test_each_runtime_that_is_installed(name: str, xnnpack: str | None) -> None:
    options = {"runtime": installed(name)} | ({} if xnnpack is None else {"xnnpack": xnnpack})
    workload = tflite.create(str(reference("kws_ref_model_float32")), options)
    workload.run(2)
    assert workload.describe()["delegate"] == ("XNNPACK" if xnnpack is None else "none")
    (y,) = workload.outputs()
    assert y.shape == (1, 12)
    assert y.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.outside
def test_xnnpack_and_the_built_in_kernels_agree() -> None:
    answers = []
    for xnnpack in ("on", "off"):
        workload = tflite.create(str(reference("vww_96_float")), {"xnnpack": xnnpack, "seed": "4"})
        workload.run(1)
        answers.append(workload.outputs()[0])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-7)


# --- delegates

# The parts of TensorFlow Lite's C interface (tensorflow/lite/core/c/common.h and
# tensorflow/lite/delegates/external/external_delegate_interface.h) that a delegate of one operator needs. It computes
# the dense layer above, times the option `factor`; `mode` says what it does instead.
PLUGIN = r"""
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } Ints;
typedef struct { int type; float *data; Ints *dims; char rest[88]; } Tensor;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    int (*prepare)(Context *, void *);
    int (*invoke)(Context *, void *);
    const char *(*profiling_string)(const Context *, const void *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *rest[8];
} Registration;
struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(Context *, Ints **);
    Tensor *tensors;
    void *others[5];
    int (*replace)(Context *, Registration, const Ints *, Delegate *);
};
struct Delegate {
    void *data;
    int (*prepare)(Context *, Delegate *);
    void *buffers[3];
    int64_t flags;
    void *builder;
    char mode[16];
};

static float factor = 1;

static int dense(Context *context, void *node) {
    const float *x = context->tensors[0].data, *w = context->tensors[1].data, *b = context->tensors[2].data;
    float *y = context->tensors[3].data;
    (void)node;
    for (int row = 0; row < 4; row++) {
        y[row] = b[row];
        for (int column = 0; column < 8; column++) y[row] += x[column] * w[row * 8 + column];
        y[row] *= factor;
    }
    return 0;
}

static int accept(Context *context, void *node) { (void)context; (void)node; return 0; }

static int prepare(Context *context, Delegate *delegate) {
    Registration registration = {.prepare = accept, .invoke = dense, .custom_name = "Dense", .version = 1};
    Ints *plan;
    if (!strcmp(delegate->mode, "abort")) abort();
    if (!strcmp(delegate->mode, "fail")) return 1;
    if (!strcmp(delegate->mode, "idle")) return 0;
    context->get_execution_plan(context, &plan);
    return context->replace(context, registration, plan, delegate);
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    Delegate *delegate = calloc(1, sizeof *delegate);
    delegate->prepare = prepare;
    factor = 1;
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(keys[i], "factor")) factor = strtof(values[i], NULL);
        if (!strcmp(keys[i], "mode")) strncpy(delegate->mode, values[i], 15);
    }
    if (!strcmp(delegate->mode, "silent")) return NULL;
    if (!strcmp(delegate->mode, "absent")) { report("no device on the bus"); return NULL; }
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
"""


def compiled(folder: Path, name: str, source: str) -> Path:
    gcc = shutil.which("gcc") or pytest.skip("there is no C compiler here")
    (folder / "plugin.c").write_text(source)
    path = folder / name
    subprocess.run([gcc, "-shared", "-fPIC", "-O1", "-o", str(path), str(folder / "plugin.c")], check=True)
    return path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("plugin"), "libdense_delegate.so", PLUGIN)


def test_delegates_are_read() -> None:
    assert tflite.delegates("delegate", "libedgetpu.so.1,device:usb:0;a/b.so,k:v,l:w") == (
        tflite.Delegate(library="libedgetpu.so.1", options={"device": "usb:0"}),
        tflite.Delegate(library="a/b.so", options={"k": "v", "l": "w"}),
    )


@pytest.mark.outside
@pytest.mark.parametrize("runtime", tflite.RUNTIMES)
def test_a_delegate_computes(model: Path, plugin: Path, runtime: str) -> None:
    """Its answers are ten times the model's, so that they can be nobody else's."""
    workload = tflite.create(str(model), {"delegate": f"{plugin},factor:10", "runtime": installed(runtime)})
    workload.run(2)
    (x,), (y,) = workload.inputs(), workload.outputs()
    np.testing.assert_allclose(y, 10 * (x @ WEIGHTS.T + BIAS), rtol=1e-5)
    assert workload.describe()["delegate"] == str(plugin)


@pytest.mark.outside
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("idle", r"libdense_delegate\.so takes over no operator of .*dense\.tflite: it would run on the processor"),
        ("absent", r"libdense_delegate\.so refuses to start: no device on the bus\. Check its options"),
        ("silent", r"libdense_delegate\.so refuses to start: it gives no reason\."),
        ("fail", r"libdense_delegate\.so cannot run .*dense\.tflite: "),
        ("abort", r"libdense_delegate\.so and ai-edge-litert crash on .*dense\.tflite"),
    ],
)
def test_a_delegate_that_does_not_serve(model: Path, plugin: Path, mode: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        tflite.create(str(model), {"delegate": f"{plugin},mode:{mode}"}).prepare()
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_a_library_that_is_not_there(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"delegate libabsent\.so cannot be loaded: libabsent\.so: cannot open shared"):
        tflite.create(str(model), {"delegate": "libabsent.so"}).prepare()
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(UsageError, match=r"text\.so cannot be loaded: .*(too short|invalid ELF header)"):
        tflite.create(str(model), {"delegate": str(text)}).prepare()
    with pytest.raises(UsageError, match=r"libedgetpu\.so\.9 cannot be loaded: .* Install the package libedgetpu1-std"):
        tflite.create(str(model), {"delegate": "libedgetpu.so.9,device:usb"}).prepare()


@pytest.mark.outside
def test_a_library_that_is_no_delegate(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(tmp_path, "plain.so", "int answer(void) { return 42; }\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"plain\.so is no .* delegate: it does not export tflite_plugin_create_delegate"
    ):
        tflite.create(str(model), {"delegate": "plain.so"}).prepare()


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
    text = TensorSpec(name="sentence", dtype=np.dtype(np.bytes_), shape=(1,))
    with pytest.raises(UsageError, match=r"input 'sentence' holds .*cannot be filled"):
        inputs.draw([text], 0)


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
    ((drawn,),) = inputs.draw([TensorSpec(name="x", dtype=np.dtype(kind), shape=(1000, 1000))], 0).sets
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


def test_a_runtime_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:  # fmt: skip
    """As an old one beside a new numpy."""
    (tmp_path / "broken.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = tflite.Runtime(package="broken", module="broken", interpreter="Interpreter", distribution="broken")
    monkeypatch.setitem(tflite.RUNTIMES, "broken", broken)
    with pytest.raises(UsageError, match=r"does not work: numpy\.core\.multiarray failed to import\. Install it"):
        tflite.Tflite(model, runtime="broken").prepare()


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
