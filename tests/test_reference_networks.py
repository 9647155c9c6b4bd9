"""The reference networks that come with the package: what their cards say, held against the files."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter import profile
from joulemeter.profile import Model, Variant
from joulemeter.workload import tflite

FOLDER = Path(__file__).parents[1] / "profiles" / "models"
DIGITS = Path(__file__).parent / "data" / "digits.npz"

# R. Zingg, B. Zimmermann: Benchmarking the Intelligent Edge, 2019.
PARAMETERS = {"dense1": 7_850, "conv3dense1": 119_530, "mobilenet-cifar10": 2_270_794}
# The largest change of accuracy by int8 that they report.
INT8_COSTS = {"dense1": 0.01, "conv3dense1": 0.03}
TRAINED = sorted(INT8_COSTS)
FILES = [(name, variant) for name in PARAMETERS for variant in profile.load("model", name).variants]
EACH_FILE = pytest.mark.parametrize(("name", "variant"), FILES, ids=[str(variant.file) for _, variant in FILES])

# MobileNetV2: M. Sandler et al., 2018, arXiv 1801.04381, table 2: expansion, channels, repeats.
BOTTLENECKS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def path_of(variant: Variant) -> Path:
    assert variant.file is not None
    return FOLDER / variant.file


def variant_of(model: Model, precision: str) -> Variant:
    return next(variant for variant in model.variants if variant.precision == precision)


def constants(content: bytes) -> dict[str, list[Any]]:
    """What the file's weighted operators and the types of its weights are, read by the flatbuffer schema."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    tree = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = tree.subgraphs[0]
    # float16 weights reach their operator through one that widens them.
    widened = {}
    found: dict[str, list[Any]] = {"operators": [], "counts": [], "types": []}
    for operator in graph.operators:
        code = tree.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found["operators"].append(kind)
        if kind == "DEQUANTIZE":
            widened[int(operator.outputs[0])] = int(operator.inputs[0])
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights = [graph.tensors[widened.get(index, index)] for index in map(int, operator.inputs[1:])]
            assert all(tree.buffers[tensor.buffer].data is not None for tensor in weights)
            found["counts"].append(sum(math.prod(tensor.shape) for tensor in weights))
            found["types"].append(types[weights[0].type])
    return found


def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.load(DIGITS) as data:
        return data["images"], data["labels"]


def answers(path: Path, values: NDArray[np.float64]) -> NDArray[Any]:
    """What the project's own workload makes of `values`, one inference each; shape (samples, classes)."""
    workload = tflite.create(str(path), {})
    workload.prepare()
    session = workload._ready()
    spec = session.inputs[0]
    if spec.scale is not None:
        limits = np.iinfo(spec.dtype)
        values = np.clip(np.round(values / spec.scale) + spec.zero_point, limits.min, limits.max)
    scores = []
    for value in values.astype(spec.dtype):
        session.fill((value[np.newaxis],))
        assert len(workload.run(1)) == 1
        scores.append(workload.outputs()[0][0])
    workload.close()
    return np.array(scores)


def test_the_cards_count_the_source_s_parameters() -> None:
    for name, count in PARAMETERS.items():
        model = profile.load("model", name)
        assert model.parameters == count
        assert [variant.precision for variant in model.variants] == ["float32", "float16", "int8"]


def test_no_file_is_without_a_card() -> None:
    assert {path.name for path in FOLDER.glob("*.tflite")} == {variant.file for _, variant in FILES}


@EACH_FILE
def test_a_file_is_what_its_card_says(name: str, variant: Variant) -> None:
    content = path_of(variant).read_bytes()
    assert (variant.size, variant.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    weights = {"float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8"}[variant.precision]
    found = constants(content)
    assert set(found["types"]) == {weights}
    # The layers of a network are the same in every precision; full integer quantisation leaves nothing to widen.
    assert ("DEQUANTIZE" in found["operators"]) == (variant.precision == "float16")


@EACH_FILE
@pytest.mark.parametrize("batch", [1, 32])
def test_a_file_runs_at_both_batches(name: str, variant: Variant, batch: int) -> None:
    workload = tflite.create(str(path_of(variant)), {"batch": str(batch)})
    stamps = workload.run(3)
    assert np.all(stamps.end_ns > stamps.begin_ns)
    described = workload.describe()
    assert (described["batch"], described["model_sha256"]) == (batch, variant.sha256)
    shape = profile.load("model", name).input
    assert shape is not None
    (values,), (scores,) = workload.inputs(), workload.outputs()
    assert values.shape == (batch, *shape.shape)
    assert scores.shape == (batch, 10)
    assert (values.dtype == scores.dtype == np.int8) == (variant.precision == "int8")
    workload.close()


@pytest.mark.parametrize("name", TRAINED)
def test_the_files_of_the_small_networks_hold_all_parameters(name: str) -> None:
    for variant in profile.load("model", name).variants:
        assert sum(constants(path_of(variant).read_bytes())["counts"]) == PARAMETERS[name]


def test_the_files_of_mobilenet_hold_those_of_mobilenet_v2() -> None:
    """The paper's table gives the source's count; conversion folds four figures per normalised channel into one."""
    kernels, channels, width = 3 * 3 * 3 * 32, 32, 32
    for expansion, out, repeats in BOTTLENECKS:
        for _ in range(repeats):
            inner = expansion * width
            kernels += (width * inner if expansion > 1 else 0) + 3 * 3 * inner + inner * out
            channels += (inner if expansion > 1 else 0) + inner + out
            width = out
    kernels, channels = kernels + width * 1280, channels + 1280
    dense = 1280 * 10 + 10
    assert kernels + 4 * channels + dense == PARAMETERS["mobilenet-cifar10"]
    model = profile.load("model", "mobilenet-cifar10")
    for variant in model.variants:
        assert sum(constants(path_of(variant).read_bytes())["counts"]) == kernels + channels + dense
    assert any(f"{kernels + channels + dense:,}" in note for note in model.notes)


@pytest.mark.parametrize("name", TRAINED)
def test_digits_are_recognised_as_the_card_says(name: str) -> None:
    """50 of the held-out digits: the share of right answers lies within four standard errors of the stated one."""
    images, labels = digits()
    assert np.array_equal(np.bincount(labels), np.full(10, 5))
    for variant in profile.load("model", name).variants:
        assert variant.accuracy is not None
        right = np.mean(np.argmax(answers(path_of(variant), images / 255), axis=1) == labels)
        stated = float(variant.accuracy)
        assert abs(right - stated) <= 4 * math.sqrt(stated * (1 - stated) / len(labels))


@pytest.mark.parametrize("name", TRAINED)
def test_int8_costs_no_more_accuracy_than_in_the_source(name: str) -> None:
    model = profile.load("model", name)
    whole, small = (variant_of(model, precision).accuracy for precision in ("float32", "int8"))
    assert whole is not None
    assert small is not None
    assert abs(whole - small) < INT8_COSTS[name]


def test_dense1_is_a_softmax_of_one_product() -> None:
    """The float32 file's own weights, multiplied by numpy."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    path = path_of(variant_of(profile.load("model", "dense1"), "float32"))
    tree = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = tree.subgraphs[0]
    (operator,) = (each for each in graph.operators if len(each.inputs) == 3)
    weights, bias = (
        np.frombuffer(bytes(tree.buffers[graph.tensors[index].buffer].data), np.float32).astype(np.float64)
        for index in map(int, operator.inputs[1:])
    )
    images, _ = digits()
    logits = images.reshape(50, 784) / 255 @ weights.reshape(10, 784).T + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers(path, images / 255), expected, rtol=1e-4, atol=1e-6)


def test_mobilenet_is_alive_and_untrained() -> None:
    """Its outputs follow its inputs, in every precision; its card claims no accuracy."""
    model = profile.load("model", "mobilenet-cifar10")
    assert model.accuracy is None
    assert model.training is not None
    assert model.training.data is None
    coarse = np.random.default_rng(7).uniform(-1, 1, (8, 4, 4, 3))
    values = coarse.repeat(8, axis=1).repeat(8, axis=2)
    scores = {variant.precision: answers(path_of(variant), values) for variant in model.variants}
    assert all(variant.accuracy is None for variant in model.variants)
    np.testing.assert_allclose(scores["float32"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores["float16"], scores["float32"], atol=0.1)
    for each in scores.values():
        assert len(np.unique(each, axis=0)) == len(values)
