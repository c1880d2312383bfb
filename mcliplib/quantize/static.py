"""Static int8 in ONNX Runtime: weights and activations of convolutions and matrix products as bytes.

Uniform quantization (1712.05877): q = round(x / step) + zero. Weights have a step per output channel and zero 0,
activations one step per tensor, from ranges measured on calibration pictures. The model is written with pairs of
QuantizeLinear and DequantizeLinear (QDQ), which the runtime fuses into integer kernels (`executed` counts them).

Depthwise convolutions stay in float. They hold a few percent of the weights and of the arithmetic, but their channels
differ most in range, and ONNX Runtime's integer kernel for 7 x 7 takes several times as long as the float one. So do
the other layers whose quantization alone changes the features most, as far as they are small.

Activations are unsigned and weights signed, which processors with VNNI (or ARM's dot products) add without overflow; on
older ones, sums of two products may saturate.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.quantize.equalize import correct_bias
from mcliplib.quiet import quiet

Ranges = Literal["percentile", "entropy", "minmax"]
KINDS = ("Conv", "MatMul", "Gemm")
INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")  # as executed
_PROBES = 32  # pictures on which a layer's sensitivity is measured
_CORRECTED = 64  # pictures from which mean activations are taken
_CHUNK = 16  # pictures of which all activations are held at once
_PERCENTILE = 99.999
_FLOAT_WEIGHTS, _FLOAT_NODES = 0.01, 0.34  # shares of all that may be left in float


class Quantized(NamedTuple):
    """The result of static quantization.

    Attributes:
        model: the `onnx.ModelProto` with QDQ pairs.
        kept_float: names of the nodes that were left in float: depthwise ones, then others, the most sensitive first.
        errors: 1 - cosine to the float features, mean over calibration pictures: all nodes quantized, and as it is.
        executed: operators that the runtime executes, and how many of each.
    """

    model: Any
    kept_float: list[str]
    errors: tuple[float, float]
    executed: dict[str, int]


class Quantizer:
    """A float model with measured ranges, of which any nodes can be quantized.

    Args:
        model: an `onnx.ModelProto` with one input.
        inputs: [N, ...] float32, for calibration.
        per_channel: whether weights have a step for each output channel; else one for each tensor.
        ranges: how an activation's range follows from its values: the whole of it, all but 0.001%, or the one of least
            entropy (KL divergence of the histograms).
    """

    def __init__(self, model: Any, inputs: Float[np.ndarray, "n ..."], *, per_channel: bool, ranges: Ranges) -> None:
        self._model, self._per_channel = model, per_channel
        self._inputs = inputs[:: max(1, len(inputs) // _PROBES)][:_PROBES]
        self._wanted = self.features(model)
        self._ranges = _measured(model, inputs, ranges)
        constants = {weight.name for weight in model.graph.initializer}
        self.nodes = [
            node.name for node in model.graph.node if node.op_type in KINDS and constants.intersection(node.input)
        ]
        self.depthwise = _depthwise(model)

    def quantized(self, nodes: list[str]) -> Any:
        """A model of which these nodes are quantized."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        if not nodes:
            return copy
        quantizer = QDQQuantizer(
            copy,
            self._per_channel,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,  # with signed activations, convolutions beside a residual sum would run in float
            self._ranges,
            nodes,
            [],
            list(KINDS),
            {"WeightSymmetric": True, "ActivationSymmetric": False, "DisableShapeInference": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        _compact(quantizer.model.model.graph)
        return quantizer.model.model

    def features(self, model: Any) -> Float[np.ndarray, "n d"]:
        """Return the features that the model gives for the probe pictures, [n, d]."""
        return _session(model).run(None, {model.graph.input[0].name: self._inputs})[0]

    def error(self, model: Any) -> float:
        """1 - cosine to the float model's features, mean over the probes."""
        return float(np.mean(1 - np.sum(self.features(model) * self._wanted, axis=1)))

    def cheap(self, order: list[str]) -> list[str]:
        """The first nodes of an order that hold few of the weights and are few of the nodes."""
        sizes = {weight.name: int(np.prod(weight.dims)) for weight in self._model.graph.initializer}
        by_node = {
            node.name: sum(sizes.get(name, 0) for name in node.input)
            for node in self._model.graph.node
            if node.name in self.nodes
        }
        chosen = list[str]()
        room = _FLOAT_WEIGHTS * sum(by_node.values())
        for name in order:
            if by_node[name] <= room and len(chosen) < _FLOAT_NODES * len(by_node):
                chosen.append(name)
                room -= by_node[name]
        return chosen

    def correct_biases(self, encoder: nn.Module, inputs: Tensor, nodes: list[str]) -> None:
        """`correct_bias` for some nodes, in the tower and in the model."""
        from onnx import numpy_helper

        weights = {name for node in self._model.graph.node if node.name in nodes for name in node.input}
        layers = {
            f"encoder.{name}.bias": part
            for name, part in encoder.named_modules()
            if f"encoder.{name}.weight" in weights and f"encoder.{name}.bias" in weights
        }
        correct_bias(encoder, inputs, list(layers.values()))
        for weight in self._model.graph.initializer:
            if weight.name in layers:
                bias = layers[weight.name].bias.detach().numpy()
                weight.CopyFrom(numpy_helper.from_array(bias, weight.name))

    def store_depthwise(self) -> None:
        """Keep the depthwise convolutions' weights in two bytes each, where the model holds them."""
        store_as_bfloat16(self._model, set(self.depthwise.values()))

    def sensitivities(self, nodes: list[str], progress: Callable[[str], None] = lambda _: None) -> dict[str, float]:
        """The error with one of these nodes quantized and all others in float, the largest first."""
        found = {}
        for number, node in enumerate(nodes):
            progress(f"sensitivity of layer {number + 1} of {len(nodes)}")
            found[node] = self.error(self.quantized([node]))
        return dict(sorted(found.items(), key=lambda one: -one[1]))


def quantize_static(
    encoder: nn.Module,
    model: Any,
    inputs: Float[np.ndarray, "n ..."],
    *,
    per_channel: bool = True,
    ranges: Ranges = "percentile",
    progress: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Quantize a tower: choose the layers to leave in float, correct the biases of the others, write the pairs.

    Depthwise convolutions are left in float, with weights stored in bfloat16; and of the others those whose
    quantization alone costs most, as far as they hold at most 1% of the weights and are at most a third of the layers.
    All are quantized if that gives the smaller error.

    Args:
        encoder: the folded tower that `model` was exported from; its biases are corrected in place.
        model: an `onnx.ModelProto`, float32, whose weights have the tower's names after `encoder.`.
        inputs: [N, ...] for calibration.
        per_channel: see `Quantizer`. Without it nothing else is done either: it is the plain way, to compare with.
        ranges: see `Quantizer`.
        progress: told what is measured.
    """
    quantizer = Quantizer(model, inputs, per_channel=per_channel, ranges=ranges)
    whole = quantizer.quantized(quantizer.nodes)
    error = quantizer.error(whole)
    if not per_channel:
        return Quantized(whole, [], (error, error), executed(whole))
    others = [name for name in quantizer.nodes if name not in quantizer.depthwise]
    kept = [*quantizer.depthwise, *quantizer.cheap(list(quantizer.sensitivities(others, progress)))]
    nodes = [name for name in quantizer.nodes if name not in kept]
    quantizer.store_depthwise()
    quantizer.correct_biases(encoder, torch.from_numpy(inputs[:_CORRECTED]), nodes)
    made = quantizer.quantized(nodes)
    if (left := quantizer.error(made)) > error:
        kept, made, left = [], whole, error
    return Quantized(made, kept, (error, left), executed(made))


def quantize_weights(model: Any, path: Path) -> None:
    """Write a model whose matrix products and embeddings have int8 weights; activations are quantized as they come.

    For towers that no calibration is wanted for: each product finds its input's range by itself (dynamic).

    Args:
        model: an `onnx.ModelProto`, float32.
        path: the file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def store_as_bfloat16(model: Any, weights: Collection[str]) -> None:
    """Round weights to two bytes each; they are cast back to float32 when the model is loaded.

    Args:
        model: an `onnx.ModelProto`, changed in place.
        weights: names of float32 constants.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.name in weights:
            values = torch.from_numpy(numpy_helper.to_array(weight).copy()).bfloat16().view(torch.int16)
            name = f"{weight.name}.bfloat16"
            casts.append(helper.make_node("Cast", [name], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(
                helper.make_tensor(name, TensorProto.BFLOAT16, weight.dims, values.numpy().tobytes(), raw=True)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _depthwise(model: Any) -> dict[str, str]:
    """The nodes that convolve each channel by itself, and the weight of each."""
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    return {
        node.name: node.input[1]
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in shapes and shapes[node.input[1]][1] == 1
    }


def _compact(graph: Any) -> None:
    """Leave out zeros that are the default, shapes, and long names, which weigh an eighth of a small tower's file.

    The names of its input and output, and of the layers, stay.
    """
    from onnx import TensorProto, numpy_helper

    points = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.input[2:]}
    zeros = {
        constant.name
        for constant in graph.initializer
        if constant.name in points
        and constant.data_type in (TensorProto.INT8, TensorProto.INT32)
        and not numpy_helper.to_array(constant).any()
    }
    products = {name for node in graph.node if node.op_type == "Gemm" for name in node.input}  # its kernel asks for it
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and zeros.intersection(node.input[2:]) and node.output[0] not in products:
            del node.input[2:]
    names = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("name")
        for side in (node.input, node.output):
            side[:] = [names.setdefault(name, str(len(names))) for name in side]
    for at in reversed(range(len(graph.initializer))):
        if (name := graph.initializer[at].name) in names:
            graph.initializer[at].name = names[name]
        else:
            del graph.initializer[at]
    del graph.value_info[:]


def _measured(model: Any, inputs: np.ndarray, ranges: Ranges) -> Any:
    """The ranges of all tensors, as onnxruntime's quantizers take them."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    name = model.graph.input[0].name
    method = {
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
        "minmax": CalibrationMethod.MinMax,
    }[ranges]
    options = {"percentile": _PERCENTILE, "symmetric": False} if ranges == "percentile" else {}
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "float.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path, list(KINDS), str(Path(folder) / "augmented.onnx"), method, extra_options=options
        )
        for start in range(0, len(inputs), _CHUNK):
            batches = iter([{name: inputs[start : start + _CHUNK]}])
            calibrator.collect_data(_Reader(batches))
        return calibrator.compute_data()


class _Reader:
    """Batches as onnxruntime's calibrators ask for them."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _session(model: Any, optimized: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def executed(model: Any) -> dict[str, int]:
    """Operators after the runtime's own optimisation."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        _session(model, path)
        counts: dict[str, int] = {}
        for node in onnx.load(path).graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
