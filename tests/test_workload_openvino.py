from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.errors import MissingExtraError, NotFoundError, UsageError
from joulemeter.workload import cpu_governor, cpu_model, openvino, tflite

WEIGHTS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
BIAS = np.array([0.5, -0.25, 0.0, 2.0], dtype=np.float32)
MODELS = Path(__file__).parents[2] / "shared" / "data" / "models"
EXACT = {"precision": "f32"}


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("openvino")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x W + b as .xml and .bin, of any batch."""
    import openvino as made

    ops: Any = pytest.importorskip("openvino.opset13")
    x = ops.parameter([-1, 8], np.float32, name="x")
    network = made.Model(
        [ops.add(ops.matmul(x, ops.constant(WEIGHTS), False, False), ops.constant(BIAS))], [x], "dense"
    )
    made.serialize(network, str(tmp_path / "dense.xml"))
    return tmp_path / "dense.xml"


@pytest.mark.parametrize("batch", ["1", "5"])
def test_output_agrees_with_numpy(model: Path, batch: str) -> None:
    workload = openvino.create(str(model), {**EXACT, "batch": batch, "seed": "3"})
    workload.warm_up(2)
    stamps = workload.run(5, 2)
    assert (len(stamps), stamps.inferences_per_window) == (5, 2)
    assert np.all(stamps.begin_ns < stamps.end_ns)
    (x,), (y,) = workload.inputs(), workload.outputs()
    assert (x.shape, y.shape) == ((int(batch), 8), (int(batch), 4))
    np.testing.assert_allclose(y, x @ WEIGHTS + BIAS, rtol=1e-5)


def test_describe(model: Path) -> None:
    described = openvino.create(str(model), {**EXACT, "threads": "2"}).describe()
    assert described.pop("version")[0].isdigit()
    assert described.pop("device_name")
    assert described == {
        "runtime": "openvino",
        "delegate": "CPU",
        "threads": 2,
        "precision": "f32",
        "weights_sha256": hashlib.sha256(model.with_suffix(".bin").read_bytes()).hexdigest(),
        "model": "dense.xml",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "batch": 1,
        "cpu": cpu_model(),
        "governor": cpu_governor(),
        "seed": 0,
    }


def test_each_window_takes_the_next_sample_and_labels_give_accuracy(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    classes = np.argmax(x @ WEIGHTS + BIAS, axis=1)
    classes[3] = (classes[3] + 1) % 4
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "labels.npy", classes)
    options = {"input": str(tmp_path / "x.npy"), "labels": str(tmp_path / "labels.npy"), "phases": "io", **EXACT}
    workload = openvino.create(str(model), options)
    workload.ready(lambda _: None)
    assert workload.describe()["accuracy"] == {"top1": 0.95, "correct": 19, "of": 20}
    first = workload.inputs()[0]
    assert list(workload.run(7).phases) == ["set", "get"]
    (last,), (y,) = workload.inputs(), workload.outputs()
    assert not np.array_equal(first, last)
    np.testing.assert_allclose(y, last @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)


@pytest.mark.outside
@pytest.mark.parametrize("name", ["vww_96_float", "str_ww_ref_model"])
def test_the_same_file_in_two_runtimes(name: str) -> None:
    """OpenVINO and LiteRT's built-in kernels on the same drawn inputs; the second network is int8."""
    path = MODELS / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the MLPerf Tiny reference models are not here")
    answers = []
    for workload in (openvino.create(str(path), EXACT), tflite.create(str(path), {"xnnpack": "off"})):
        workload.run(1)
        answers.append((workload.inputs()[0], workload.outputs()[0]))
    assert np.array_equal(answers[0][0], answers[1][0])
    np.testing.assert_allclose(answers[0][1], answers[1][1], rtol=1e-4, atol=1e-6 if "float" in name else 1)


def test_onnx_files(tmp_path: Path) -> None:
    made = pytest.importorskip("onnx")
    helper, kinds = made.helper, made.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["N", 3])],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "relu.onnx").write_bytes(network.SerializeToString())
    np.save(tmp_path / "x.npy", np.array([-1, 0, 2], np.float32))
    workload = openvino.create(str(tmp_path / "relu.onnx"), {**EXACT, "input": str(tmp_path / "x.npy")})
    workload.run(1)
    assert workload.outputs()[0].tolist() == [[0, 0, 2]]
    assert "weights_sha256" not in workload.describe()


# --- devices


def test_a_device_that_is_not_here(model: Path) -> None:
    with pytest.raises(NotFoundError, match=r"OpenVINO finds no device NPU9\. Here there are CPU") as caught:
        openvino.create(str(model), {"device": "npu9"}).prepare()
    assert caught.value.exit_code == 3


def test_the_neural_compute_stick(model: Path) -> None:
    with pytest.raises(UsageError, match=r"no device MYRIAD\. OpenVINO 2022\.3 was the last .*archive 2022\.3\.1"):
        openvino.create(str(model), {"device": "MYRIAD"}).prepare()


def test_names_of_devices() -> None:
    available = ["CPU", "GPU.0", "GPU.1"]
    assert openvino.choose_device("GPU", available) == "GPU"
    assert openvino.choose_device("GPU.1", available) == "GPU.1"
    for name in ("GPU.2", "AUTO", "MULTI:CPU,GPU", "NPU"):
        with pytest.raises(NotFoundError, match=r"Here there are CPU, GPU\.0, GPU\.1"):
            openvino.choose_device(name, available)


# --- what can be wrong


def test_bad_options(model: Path) -> None:
    with pytest.raises(UsageError, match=r"precision cannot be 'f64'\. It is f32 or f16 or bf16"):
        openvino.create(str(model), {"precision": "f64"})
    with pytest.raises(UsageError, match=r"no option 'devise'\. Did you mean device\?"):
        openvino.create(str(model), {"devise": "CPU"})


def test_missing_and_damaged_models(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no model .*absent\.xml"):
        openvino.create(str(tmp_path / "absent.xml"), {}).prepare()
    whole = model.read_bytes()
    damaged = tmp_path / "damaged.xml"
    for content in (*(whole[:size] for size in range(1, len(whole) - 8, 499)), np.random.default_rng(0).bytes(3000)):
        damaged.write_bytes(content)
        with pytest.raises(UsageError, match=r"damaged\.xml is not a model that openvino can load"):
            openvino.create(str(damaged), {}).prepare()
    model.with_suffix(".bin").unlink()
    with pytest.raises(UsageError, match=r"dense\.xml is not a model that openvino can load"):
        openvino.create(str(model), {}).prepare()


def test_batch_that_does_not_fit(tmp_path: Path) -> None:
    """The first dimension of this input is what is multiplied with eight rows of weights."""
    import openvino as made

    ops: Any = pytest.importorskip("openvino.opset13")
    x = ops.parameter([8], np.float32, name="x")
    made.serialize(
        made.Model([ops.matmul(x, ops.constant(WEIGHTS), False, False)], [x], "flat"), str(tmp_path / "f.xml")
    )
    openvino.create(str(tmp_path / "f.xml"), {}).run(1)
    with pytest.raises(UsageError, match=r"f\.xml cannot be compiled for CPU with a batch of 3: "):
        openvino.create(str(tmp_path / "f.xml"), {"batch": "3"}).prepare()


def test_sizes_that_vary(tmp_path: Path) -> None:
    import openvino as made

    ops: Any = pytest.importorskip("openvino.opset13")
    for name, shape, message in (
        ("two", made.PartialShape([-1, -1]), r"input 'x' of .* has no fixed size: \(\?, \?\)"),
        ("any", made.PartialShape.dynamic(), r"input 'x' of .* has no fixed number of dimensions"),
    ):
        x = ops.parameter(shape, np.float32, name="x")
        x.output(0).set_names({"x"})
        made.serialize(made.Model([ops.relu(x)], [x], name), str(tmp_path / f"{name}.xml"))
        with pytest.raises(UsageError, match=message):
            openvino.create(str(tmp_path / f"{name}.xml"), {}).prepare()


def test_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'joulemeter\[openvino\]'") as caught:
        openvino.create(str(model), {}).prepare()
    assert caught.value.exit_code == 7


INTERRUPTED = """
import gc, os, signal, sys, threading, time
from joulemeter.workload import openvino
first, second = (openvino.create(sys.argv[1], {}) for _ in range(2))
first.run(20)
second.run(20)
del first
del second
gc.collect()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal of POSIX")
def test_ctrl_c_still_ends_a_recording() -> None:
    """The CPU plug-in would leave a signal stack behind whose memory was freed."""
    network = Path(__file__).parents[1] / "profiles" / "models" / "conv3dense1-float32.tflite"
    command = [sys.executable, "-c", INTERRUPTED, str(network)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
