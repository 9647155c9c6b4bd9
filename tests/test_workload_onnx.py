from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import cpu_governor, cpu_model, onnx, tflite

WEIGHTS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
BIAS = np.array([0.5, -0.25, 0.0, 2.0], dtype=np.float32)
REFERENCE = Path(__file__).parents[2] / "shared" / "data" / "models" / "vww_96_float.tflite"


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("onnxruntime")


def written(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[str, list[Any]]],
    outputs: dict[str, list[Any]],
    constants: dict[str, NDArray[Any]],
) -> Path:
    made = pytest.importorskip("onnx")
    helper, kinds = made.helper, made.TensorProto
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, getattr(kinds, kind), shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in outputs.items()],
        [made.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, inputs: list[str], **attributes: Any) -> Any:
    return pytest.importorskip("onnx").helper.make_node(kind, inputs, ["y"], **attributes)


def dense(path: Path, batch: int | str = "N") -> Path:
    """y = x W + b"""
    return written(
        path,
        [node("Gemm", ["x", "W", "b"])],
        {"x": ("FLOAT", [batch, 8])},
        {"y": [batch, 4]},
        {"W": WEIGHTS, "b": BIAS},
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return dense(tmp_path / "dense.onnx")


def test_output_agrees_with_numpy(model: Path) -> None:
    for batch in (1, 3):
        workload = onnx.create(str(model), {"batch": str(batch), "seed": "3"})
        workload.warm_up(2)
        stamps = workload.run(5, 2)
        assert (len(stamps), stamps.inferences_per_window) == (5, 2)
        assert np.all(stamps.begin_ns < stamps.end_ns)
        (x,), (y,) = workload.inputs(), workload.outputs()
        assert (x.shape, y.shape) == ((batch, 8), (batch, 4))
        np.testing.assert_allclose(y, x @ WEIGHTS + BIAS, rtol=1e-5)


def test_convolution_agrees_with_numpy(tmp_path: Path) -> None:
    """Two colours, three filters of 3 x 2, no padding, written out as sums."""
    filters = np.random.default_rng(0).normal(size=(3, 2, 3, 2)).astype(np.float32)
    path = written(
        tmp_path / "conv.onnx",
        [node("Conv", ["x", "F"])],
        {"x": ("FLOAT", [1, 2, 7, 6])},
        {"y": [1, 3, 5, 5]},
        {"F": filters},
    )
    workload = onnx.create(str(path), {})
    workload.run(1)
    (x,), (y,) = workload.inputs(), workload.outputs()
    patches = np.lib.stride_tricks.sliding_window_view(x[0].astype(np.float64), (3, 2), axis=(1, 2))
    np.testing.assert_allclose(y[0], np.einsum("chwij,fcij->fhw", patches, filters.astype(np.float64)), rtol=1e-4)


def test_describe(model: Path) -> None:
    described = onnx.create(str(model), {"batch": "2", "threads": "2"}).describe()
    assert described.pop("version")[0].isdigit()
    assert described.pop("nodes") in (None, {"CPUExecutionProvider": 1})
    assert described == {
        "runtime": "onnxruntime",
        "delegate": "CPUExecutionProvider",
        "threads": 2,
        "model": "dense.onnx",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "batch": 2,
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
    options = {"input": str(tmp_path / "x.npy"), "labels": str(tmp_path / "labels.npy"), "phases": "io"}
    workload = onnx.create(str(model), options)
    workload.ready(lambda _: None)
    assert workload.describe()["accuracy"] == {"top1": 0.95, "correct": 19, "of": 20}
    stamps = workload.run(7)
    assert list(stamps.phases) == ["set", "get"]
    (last,), (y,) = workload.inputs(), workload.outputs()
    assert np.flatnonzero((x == last[0]).all(axis=1)).size == 1
    np.testing.assert_allclose(y, last @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)


def test_several_inputs(tmp_path: Path) -> None:
    shapes = {"a": ("FLOAT", ["N", 3]), "b": ("FLOAT", ["N", 3])}
    path = written(tmp_path / "sum.onnx", [node("Add", ["a", "b"])], shapes, {"y": ["N", 3]}, {})
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)
    np.savez(tmp_path / "x.npz", a=a, b=b)
    workload = onnx.create(str(path), {"input": str(tmp_path / "x.npz")})
    workload.run(1)
    assert workload.outputs()[0].tolist() == [[10, 11, 12]]
    workload.run(1)
    assert workload.outputs()[0].tolist() == [[13, 14, 15]]


def test_images_with_colours_first(tmp_path: Path) -> None:
    """The mean of each colour of an image that is resized."""
    path = written(
        tmp_path / "mean.onnx",
        [node("GlobalAveragePool", ["x"])],
        {"x": ("FLOAT", ["N", 3, 4, 5])},
        {"y": ["N", 3, 1, 1]},
        {},
    )
    colour = np.array([255, 51, 0], dtype=np.uint8)
    image = pytest.importorskip("PIL.Image").fromarray(np.broadcast_to(colour, (9, 9, 3)).copy())
    image.save(tmp_path / "colour.png")
    workload = onnx.create(str(path), {"input": str(tmp_path / "colour.png"), "pixels": "-1..1"})
    workload.run(1)
    assert workload.outputs()[0].ravel().tolist() == pytest.approx([1, -0.6, -1], abs=1e-6)
    assert workload.describe()["input"] == {"name": "colour.png", "count": 1, "pixels": "-1..1"}


def test_accuracy_is_for_classifiers(tmp_path: Path) -> None:
    path = written(tmp_path / "same.onnx", [node("Relu", ["x"])], {"x": ("FLOAT", ["N", 1])}, {"y": ["N", 1]}, {})
    np.save(tmp_path / "x.npy", np.zeros((2, 1), np.float32))
    (tmp_path / "labels.txt").write_text("0\n0\n")
    options = {"input": str(tmp_path / "x.npy"), "labels": str(tmp_path / "labels.txt")}
    with pytest.raises(UsageError, match=r"same\.onnx has the shape \(1, 1\), which is no row of scores"):
        onnx.create(str(path), options).ready(print)


# --- providers


def test_unknown_provider(model: Path) -> None:
    with pytest.raises(UsageError, match=r"no execution provider 'gpux'\. Here there are .*cpu"):
        onnx.create(str(model), {"provider": "gpux"}).prepare()


@pytest.mark.parametrize("name", ["CUDA", "cuda", "CUDAExecutionProvider"])
def test_provider_that_this_build_lacks(model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=r"Here there are cpu\. It comes with the package onnxruntime-gpu") as caught:
        onnx.create(str(model), {"provider": name}).prepare()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_names_of_a_provider(model: Path, name: str) -> None:
    assert onnx.create(str(model), {"provider": name}).describe()["delegate"] == "CPUExecutionProvider"


def test_falling_back_in_silence_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself only warns, and runs the model on the processor."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a CUDA provider here, which would not fall back")
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    with pytest.warns(UserWarning, match="not in available"):
        assert onnxruntime.InferenceSession(str(model), providers=both).get_providers() == both[1:]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with pytest.raises(UsageError, match=r"does not run on CUDAExecutionProvider: .* gave it to CPUExecutionProvider"):
        onnx.create(str(model), {"provider": "cuda"}).prepare()


def test_a_provider_without_a_node_is_an_error(model: Path) -> None:
    """The provider for models in the cloud is there, and takes no node of a model that is here."""
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no provider that takes no node")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell which nodes a provider has")
    with pytest.raises(UsageError, match=r"does not run on AzureExecutionProvider: .* gave it to CPUExecutionProvider"):
        onnx.create(str(model), {"provider": "azure"}).prepare()


# --- what can be wrong


def test_bad_options(model: Path) -> None:
    with pytest.raises(UsageError, match=r"no option 'providers'\. Did you mean provider\?"):
        onnx.create(str(model), {"providers": "cpu"})
    with pytest.raises(UsageError, match="onnx needs a model"):
        onnx.create("", {})


def test_missing_and_damaged_models(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no model .*absent\.onnx"):
        onnx.create(str(tmp_path / "absent.onnx"), {}).prepare()
    whole = model.read_bytes()
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"damaged\.onnx is not an ONNX model: it is empty"):
        onnx.create(str(path), {}).prepare()
    for content in (*(whole[:size] for size in range(1, len(whole) - 8, 29)), np.random.default_rng(0).bytes(3000)):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"damaged\.onnx is not an ONNX model that onnxruntime can load"):
            onnx.create(str(path), {}).prepare()


def test_batch_that_is_fixed(tmp_path: Path) -> None:
    path = dense(tmp_path / "one.onnx", batch=1)
    assert onnx.create(str(path), {"batch": "1"}).describe()["batch"] == 1
    with pytest.raises(UsageError, match=r"cannot run with a batch of 2: the input 'x' is fixed to 1\. Leave"):
        onnx.create(str(path), {"batch": "2"}).prepare()


def test_other_sizes_that_vary(tmp_path: Path) -> None:
    shape = ["N", "length"]
    path = written(tmp_path / "text.onnx", [node("Relu", ["x"])], {"x": ("FLOAT", shape)}, {"y": shape}, {})
    with pytest.raises(UsageError, match=r"input 'x' of .*text\.onnx has no fixed size: \(N, length\)"):
        onnx.create(str(path), {}).prepare()


def test_input_of_text(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    made = pytest.importorskip("onnx")
    helper, kinds = made.helper, made.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [helper.make_tensor_value_info("x", kinds.STRING, [1])],
        [helper.make_tensor_value_info("y", kinds.STRING, [1])],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(UsageError, match=r"input 'x' of .* is a tensor\(string\), not a plain tensor"):
        onnx.create(str(path), {}).prepare()


def test_index_out_of_range_while_running(tmp_path: Path) -> None:
    path = written(
        tmp_path / "gather.onnx",
        [node("Gather", ["table", "x"])],
        {"x": ("INT64", ["N"])},
        {"y": ["N", 2]},
        {"table": np.ones((4, 2), np.float32)},
    )
    np.save(tmp_path / "x.npy", np.array([9]))
    with pytest.raises(UsageError, match=r"gather\.onnx does not run: .*indices element out of data bounds"):
        onnx.create(str(path), {"input": str(tmp_path / "x.npy")}).run(1)


def test_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'joulemeter\[onnx\]'") as caught:
        onnx.create(str(model), {}).prepare()
    assert caught.value.exit_code == 7


def test_import_brings_no_runtime() -> None:
    ask = (
        "import sys, joulemeter.workload.onnx, joulemeter.workload.openvino\n"
        "print([n for n in ('onnxruntime', 'openvino', 'PIL') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.outside
def test_one_network_in_two_runtimes(tmp_path: Path) -> None:
    """The last layer of a reference network, whose weights LiteRT gives, computed by ONNX Runtime and by LiteRT."""
    if not REFERENCE.exists():
        pytest.skip("the MLPerf Tiny reference models are not here")
    workload = tflite.create(str(REFERENCE), {"xnnpack": "off"})
    workload.run(1)
    session: Any = workload._session
    interpreter = session._interpreter
    last = next(op for op in interpreter._get_ops_details() if op["op_name"] == "FULLY_CONNECTED")
    features, weights, bias = (interpreter.get_tensor(index) for index in last["inputs"])
    assert weights.shape == (2, 256)
    path = written(
        tmp_path / "head.onnx",
        [
            pytest.importorskip("onnx").helper.make_node("Gemm", ["x", "W", "b"], ["scores"], transB=1),
            node("Softmax", ["scores"], axis=-1),
        ],
        {"x": ("FLOAT", [1, 256])},
        {"y": [1, 2]},
        {"W": weights, "b": bias},
    )
    np.save(tmp_path / "x.npy", features)
    head = onnx.create(str(path), {"input": str(tmp_path / "x.npy")})
    head.run(1)
    np.testing.assert_allclose(head.outputs()[0], workload.outputs()[0], rtol=1e-5)
