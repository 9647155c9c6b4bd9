from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError
from joulemeter.workload import inputs
from joulemeter.workload.inputs import TensorSpec


def spec(
    *shape: int, dtype: str = "float32", scale: float | None = None, zero_point: int = 0, name: str = "x"
) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=np.dtype(dtype), scale=scale, zero_point=zero_point)


def saved(path: Path, values: Any) -> Path:
    np.save(path, values)
    return path


def picture(path: Path, values: NDArray[Any]) -> Path:
    pytest.importorskip("PIL.Image").fromarray(values).save(path)
    return path


# --- arrays


@pytest.mark.parametrize(
    ("stored", "count"), [((3, 2), 1), ((1, 3, 2), 1), ((5, 3, 2), 5), ((5, 1, 3, 2), 5)]
)  # fmt: skip
def test_one_sample_or_a_stack(tmp_path: Path, stored: tuple[int, ...], count: int) -> None:
    values = np.arange(np.prod(stored), dtype=np.float32).reshape(stored)
    feed = inputs.read(saved(tmp_path / "x.npy", values), [spec(1, 3, 2)])
    assert feed.described == {"input": {"name": "x.npy", "count": count}}
    assert feed.labels is None
    assert [x.shape for (x,) in feed.sets] == [(1, 3, 2)] * count
    assert np.array_equal(np.concatenate([x for (x,) in feed.sets]).ravel(), values.ravel())


def test_the_last_batch_is_filled_from_the_first(tmp_path: Path) -> None:
    feed = inputs.read(saved(tmp_path / "x.npy", np.arange(5, dtype=np.float32)[:, None]), [spec(3, 1)])
    assert [x.ravel().tolist() for (x,) in feed.sets] == [[0, 1, 2], [3, 4, 0]]
    assert feed.described["input"]["count"] == 5


def test_quantised_by_hand(tmp_path: Path) -> None:
    """scale 0.5, zero point -3: 1.2 is 2.4 steps, so 2 - 3; ties go to even; both ends are clipped."""
    values = np.array([0, 1.2, -1.2, 0.25, 0.75, 1000, -1000, np.inf], dtype=np.float32)
    feed = inputs.read(saved(tmp_path / "x.npy", values), [spec(1, 8, dtype="int8", scale=0.5, zero_point=-3)])
    ((x,),) = feed.sets
    assert x.dtype == np.int8
    assert x.ravel().tolist() == [-3, -1, -5, -3, -1, 127, -128, 127]


@pytest.mark.outside
@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -128), ("uint8", 7)])
def test_quantised_as_onnx_runtime_does(dtype: str, zero_point: int) -> None:
    """Its operator QuantizeLinear: saturate(round(x / scale) + zero_point), ties to even."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    kind = getattr(onnx.TensorProto, dtype.upper())
    scale = np.float32(0.0239)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])],
        "quantise",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1000])],
        [onnx.helper.make_tensor_value_info("q", kind, [1000])],
        [
            onnx.numpy_helper.from_array(np.array(scale), "scale"),
            onnx.numpy_helper.from_array(np.array(zero_point, dtype=dtype), "zero"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(0, 2, 1000).astype(np.float32)
    (expected,) = session.run(None, {"x": x})
    ours = inputs.quantised(x, spec(1000, dtype=dtype, scale=float(scale), zero_point=zero_point))
    assert np.array_equal(ours, expected)
    assert len(np.unique(expected)) > 50


@pytest.mark.parametrize(
    ("stored", "tensor"),
    [("int8", spec(1, 2, dtype="int8", scale=0.1)), ("float64", spec(1, 2)), ("int64", spec(1, 2, dtype="int64"))],
)
def test_types_that_fit(tmp_path: Path, stored: str, tensor: TensorSpec) -> None:
    """Integers of the tensor's own type are taken as they are."""
    feed = inputs.read(saved(tmp_path / "x.npy", np.array([7, -8], dtype=stored)), [tensor])
    ((x,),) = feed.sets
    assert x.dtype == tensor.dtype
    assert x.ravel().tolist() == [7, -8]


@pytest.mark.parametrize(
    ("values", "tensor", "message"),
    [
        (np.zeros((2, 7), np.float32), spec(1, 8), r"has the shape \(2, 7\), but the input 'x' has \(1, 8\)"),
        (np.zeros((0, 8), np.float32), spec(1, 8), r"has the shape \(0, 8\)"),
        (np.zeros(8, np.uint8), spec(1, 8), "holds uint8, but the input 'x' takes float32. Store it as float32"),
        (
            np.zeros(8, np.uint8),
            spec(1, 8, dtype="int8", scale=1.0),
            "holds uint8, .* takes int8. Store it as int8, or",
        ),
        (np.zeros(8, np.float32), spec(1, 8, dtype="int8"), r"holds float32, .* takes int8\. Store it as int8\.$"),
        (np.full(8, np.nan), spec(1, 8, dtype="int8", scale=1.0), "values that are not numbers"),
        (np.array(["a"] * 8), spec(1, 8), "holds <U1"),
        (np.array([{}] * 8), spec(1, 8), r"x\.npy cannot be read as numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, values: NDArray[Any], tensor: TensorSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inputs.read(saved(tmp_path / "x.npy", values), [tensor])


def test_damaged_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.zeros(8, np.float32))
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:-3], b"PK\3\4 no archive"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"x\.npy (cannot be read as numbers|is a \.npz)"):
            inputs.read(path, [spec(1, 8)])


def test_several_inputs(tmp_path: Path) -> None:
    specs = [spec(1, 2, name="ids", dtype="int64"), spec(1, 3, name="mask")]
    ids, mask = np.arange(8).reshape(4, 2), np.ones((4, 3), np.float32)
    np.savez(tmp_path / "x.npz", mask=mask, ids=ids)
    feed = inputs.read(tmp_path / "x.npz", specs)
    assert [a.tolist() for a, _ in feed.sets] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
    assert all(b.shape == (1, 3) for _, b in feed.sets)
    np.savez(tmp_path / "y.npz", mask=mask[:3], ids=ids)
    with pytest.raises(UsageError, match=r"do not belong together: 4 of 'ids', 3 of 'mask'"):
        inputs.read(tmp_path / "y.npz", specs)
    np.savez(tmp_path / "z.npz", mask=mask, words=ids)
    with pytest.raises(UsageError, match=r"holds 'mask', 'words', but the model's inputs are 'ids', 'mask'"):
        inputs.read(tmp_path / "z.npz", specs)
    with pytest.raises(UsageError, match=r"x\.npy fills one input, but the model has 'ids', 'mask'\. Give a \.npz"):
        inputs.read(saved(tmp_path / "x.npy", ids), specs)


# --- images


@pytest.mark.parametrize(
    ("tensor", "pixels", "chosen", "expected"),
    [
        # 0.6 / (2 / 255) = 76.5 steps below the zero point go to the even -76; both ends are half a step beyond.
        (spec(1, 1, 3, 1, dtype="int8", scale=1 / 255, zero_point=-128), None, "0..1", [-128, -77, 127]),
        (spec(1, 1, 3, 1, dtype="int8", scale=2 / 255, zero_point=-1), None, "-1..1", [-128, -77, 127]),
        (spec(1, 1, 3, 1, dtype="uint8", scale=1.0, zero_point=0), None, "0..255", [0, 51, 255]),
        (spec(1, 1, 3, 1, dtype="uint8"), None, "0..255", [0, 51, 255]),
        (spec(1, 1, 3, 1), None, "0..1", [0, 0.2, 1]),
        (spec(1, 1, 3, 1), "-1..1", "-1..1", [-1, -0.6, 1]),
        (spec(1, 1, 3, 1), "0..255", "0..255", [0, 51, 255]),
        (spec(1, 1, 3), "0..255", "0..255", [0, 51, 255]),
        (spec(1, 1, 3, 1, dtype="int8", scale=0.5, zero_point=0), "0..1", "0..1", [0, 0, 2]),
    ],
)  # fmt: skip
def test_pixels(
    tmp_path: Path, tensor: TensorSpec, pixels: str | None, chosen: str, expected: list[float]
) -> None:  # fmt: skip
    path = picture(tmp_path / "grey.png", np.array([[0, 51, 255]], dtype=np.uint8))
    feed = inputs.read(path, [tensor], pixels=pixels)
    ((x,),) = feed.sets
    assert (x.dtype, x.shape) == (tensor.dtype, tensor.shape)
    assert x.ravel().tolist() == pytest.approx(expected)
    assert feed.described == {"input": {"name": "grey.png", "count": 1, "pixels": chosen}}


COLOURS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_layouts(tmp_path: Path, ending: str) -> None:
    """Height 2, width 3: colours last as TensorFlow has them, colours first as PyTorch has them."""
    path = picture(tmp_path / f"colours.{ending}", COLOURS)
    ((last,),) = inputs.read(path, [spec(1, 2, 3, 3, dtype="uint8")]).sets
    ((first,),) = inputs.read(path, [spec(1, 3, 2, 5, dtype="uint8")]).sets
    assert np.array_equal(last[0], COLOURS)
    assert first.shape == (1, 3, 2, 5)
    ((same,),) = inputs.read(path, [spec(1, 3, 8, 8, dtype="uint8")]).sets
    assert same.shape == (1, 3, 8, 8)


def test_channels_first_are_the_channels_last(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    path = picture(tmp_path / "big.png", big)
    ((x,),) = inputs.read(path, [spec(1, 3, 8, 6, dtype="uint8")]).sets
    assert all(np.array_equal(x[0, channel], big[:, :, channel]) for channel in range(3))


def test_grey_of_colours_and_colours_of_grey(tmp_path: Path) -> None:
    """ITU-R 601-2: L = 0.299 R + 0.587 G + 0.114 B."""
    path = picture(tmp_path / "colours.png", COLOURS)
    ((grey,),) = inputs.read(path, [spec(1, 2, 3, 1, dtype="uint8")]).sets
    luma = COLOURS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[0, :, :, 0] - luma).max() <= 1
    path = picture(tmp_path / "grey.png", COLOURS[:, :, 0])
    ((three,),) = inputs.read(path, [spec(1, 2, 3, 3, dtype="uint8")]).sets
    assert all(np.array_equal(three[0, :, :, channel], COLOURS[:, :, 0]) for channel in range(3))


def test_resized_to_the_tensor(tmp_path: Path) -> None:
    """A left half black and a right half white stay so, and a plain colour stays that colour."""
    halves = np.repeat(np.array([[0, 255]], dtype=np.uint8), 40, axis=1).repeat(60, axis=0)
    ((x,),) = inputs.read(picture(tmp_path / "halves.png", halves), [spec(1, 12, 16, 1)]).sets
    assert x.shape == (1, 12, 16, 1)
    assert np.all(x[0, :, :7, 0] == 0)
    assert np.all(x[0, :, 9:, 0] == 1)
    ((x,),) = inputs.read(picture(tmp_path / "plain.jpg", np.full((50, 30), 128, np.uint8)), [spec(1, 7, 9, 3)]).sets
    assert x.ravel() == pytest.approx(128 / 255, abs=1.5 / 255)


@pytest.mark.parametrize(
    ("tensor", "pixels", "message"),
    [
        (spec(1, 490), None, r"is an image, but the input 'x' has the shape \(1, 490\)"),
        (spec(1, 5, 5, 7), None, r"has the shape \(1, 5, 5, 7\)"),
        (spec(1, 2, 2, 1, dtype="int8"), None, "holds int8, and the runtime does not say what that stands for"),
        (spec(1, 2, 2, 1, dtype="uint8"), "0..1", "holds uint8, and the runtime does not say"),
        (spec(1, 2, 2, 1, dtype="int8", scale=0.58, zero_point=83), None, r"covers -122 to 25\.5, which is none"),
    ],
)
def test_images_that_do_not_fit(tmp_path: Path, tensor: TensorSpec, pixels: str | None, message: str) -> None:
    path = picture(tmp_path / "p.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match=message):
        inputs.read(path, [tensor], pixels=pixels)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(UsageError, match=r"p\.png is not an image that can be read"):
        inputs.read(tmp_path / "p.png", [spec(1, 2, 2, 1)])
    picture(tmp_path / "deep.png", np.zeros((2, 2), np.uint16))
    with pytest.raises(UsageError, match=r"deep\.png has more than 8 bits a colour"):
        inputs.read(tmp_path / "deep.png", [spec(1, 2, 2, 1)])


def test_images_need_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "p.png", np.zeros((2, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pip install 'pillow'"):
        inputs.read(path, [spec(1, 2, 2, 1)])


# --- folders and labels


def test_class_folders(tmp_path: Path) -> None:
    """Classes count in the folders' order, files in theirs; what is hidden or of another kind is left alone."""
    values = {"cat": [5, 6], "ant": [1], "bee": [2, 3, 4]}
    for name, numbers in values.items():
        (tmp_path / name).mkdir()
        for number in numbers:
            saved(tmp_path / name / f"{number}.npy", np.full(2, number, np.float32))
    (tmp_path / "bee" / "notes.txt").write_text("not a sample")
    (tmp_path / ".cache").mkdir()
    feed = inputs.read(tmp_path, [spec(1, 2)])
    assert [int(x[0, 0]) for (x,) in feed.sets] == [1, 2, 3, 4, 5, 6]
    assert feed.labels is not None
    assert feed.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert feed.described == {"input": {"name": tmp_path.name, "count": 6}}


def test_a_folder_of_stacks_and_a_label_file(tmp_path: Path) -> None:
    saved(tmp_path / "b.npy", np.full((3, 2), 2, np.float32))
    saved(tmp_path / "a.npy", np.full((2,), 1, np.float32))
    labels = tmp_path / "labels.txt"
    labels.write_text("4\n3\n2\n1\n\n")
    feed = inputs.read(tmp_path, [spec(1, 2)], labels=labels)
    assert [int(x[0, 0]) for (x,) in feed.sets] == [1, 2, 2, 2]
    assert feed.labels is not None
    assert feed.labels.tolist() == [4, 3, 2, 1]
    by_array = inputs.read(tmp_path / "b.npy", [spec(1, 2)], labels=saved(tmp_path / "l.npy", np.array([7, 8, 9])))
    assert by_array.labels is not None
    assert by_array.labels.tolist() == [7, 8, 9]


def test_label_files_that_are_none(tmp_path: Path) -> None:
    x = saved(tmp_path / "x.npy", np.zeros(2, np.float32))
    with pytest.raises(UsageError, match=r"There are no labels .*absent\.txt"):
        inputs.read(x, [spec(1, 2)], labels=tmp_path / "absent.txt")
    with pytest.raises(UsageError, match=r"The labels .* cannot be read"):
        inputs.read(x, [spec(1, 2)], labels=tmp_path)
    with pytest.raises(UsageError, match=r"holds float32 of shape \(2,\)\. Labels are a row of integers"):
        inputs.read(x, [spec(1, 2)], labels=x)
    (tmp_path / "minus.txt").write_text("-1\n")
    with pytest.raises(UsageError, match=r"Line 1 of .* is '-1'"):
        inputs.read(x, [spec(1, 2)], labels=tmp_path / "minus.txt")


def test_paths_that_hold_no_sample(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no input"):
        inputs.read(tmp_path / "absent", [spec(1, 2)])
    with pytest.raises(UsageError, match="holds no sample"):
        inputs.read(tmp_path, [spec(1, 2)])
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(UsageError, match=r"x\.csv cannot be read as an input\. It is a folder or one of \.npy"):
        inputs.read(tmp_path / "x.csv", [spec(1, 2)])
    saved(tmp_path / "x.npy", np.zeros(2, np.float32))
    with pytest.raises(UsageError, match=r"pixels=0\.\.1 has no use: .* holds no image"):
        inputs.read(tmp_path / "x.npy", [spec(1, 2)], pixels="0..1")
    (tmp_path / "class").mkdir()
    with pytest.raises(UsageError, match="holds both samples and folders"):
        inputs.read(tmp_path, [spec(1, 2)])
