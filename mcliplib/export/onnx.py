"""ONNX, for ONNX Runtime and whatever else reads it: by torch's exporter, which traces with `torch.export`.

The batch is dynamic. float16 computes in float16; bfloat16 only stores the weights so and computes in float32, because
ONNX Runtime's CPU kernels know no bfloat16. The preprocessing may be part of the graph (`preprocessing_graph`).
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcliplib.errors import UserError
from mcliplib.export.towers import INPUTS, Tower
from mcliplib.export.verify import Runtime
from mcliplib.latency.worker import open_onnx
from mcliplib.layers.cpu import PointwiseLinear, is_pointwise
from mcliplib.preprocess import Preprocess
from mcliplib.quantize.equalize import equalize
from mcliplib.quantize.static import INTEGER, KINDS, quantize_static, quantize_weights, store_as_bfloat16
from mcliplib.quiet import quiet

SUFFIX = ".onnx"
NEEDS = ("onnx", "onnxscript", "onnxruntime")
EXTRA = "export"
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
REFUSED: dict[str, str] = {}
OPSET = 20  # the first one with GELU; 18 would do for Resize with antialias
PICTURES = "pictures"  # input of a graph that preprocesses
_RESIZE = {"bilinear": 'mode = "linear"', "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5'}  # as Pillow's
_LARGE = 1024  # numbers, from which weights are stored in bfloat16


def convert(
    tower: Tower,
    path: Path,
    precision: str,
    *,
    preprocess: Preprocess | None = None,
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a tower as an ONNX file.

    Inputs are `pixels` float32 [batch, 3, H, W], or `pictures` uint8 [batch, height, width, 3] where the graph
    preprocesses, or `tokens` int64 [batch, T]; the output is `features` float32 [batch, D], of length 1.

    Args:
        tower: in float32.
        path: the file.
        precision: "float32", "float16", "bfloat16" or "int8".
        preprocess: put into the graph, for an image tower.
        calibration: [N, 3, H, W], for an image tower in int8.
        per_channel: see `quantize_static`.
        progress: told what is measured.

    Returns:
        What the card says of it: the opset, and the number of nodes of each operator.
    """
    import onnx

    about: dict[str, Any] = {"opset": OPSET}
    if precision == "int8":
        model, more = _quantized(copy.deepcopy(tower), path, calibration, per_channel, progress)
        about |= more
    else:
        model = to_proto(tower.computing_in(torch.float16) if precision == "float16" else tower)
    if precision == "bfloat16":
        constants = [weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT]
        store_as_bfloat16(model, {weight.name for weight in constants if np.prod(weight.dims) >= _LARGE})
    if preprocess is not None:
        first = preprocessing_graph(preprocess, model.ir_version)
        first = onnx.compose.add_prefix(first, "preprocess.", rename_inputs=False, rename_outputs=False)
        model = onnx.compose.merge_models(first, model, io_map=[(INPUTS["image"], INPUTS["image"])])
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return about | {"operators": operators(model)}


def _quantized(
    tower: Tower, path: Path, calibration: np.ndarray | None, per_channel: bool, progress: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """An image tower by static quantization, a text tower with its weights only."""
    import onnx

    if tower.name == "text":
        forms = {id(part): PointwiseLinear(part) for part in tower.modules() if is_pointwise(part)}
        tower.encoder = copy.deepcopy(tower.encoder, forms)  # as matrix products, which can be quantized dynamically
        quantize_weights(to_proto(tower), path)
        return onnx.load(path), {"note": "int8 weights of matrix products and embedding; activations as they come"}
    if calibration is None:
        raise UserError("int8 needs pictures to calibrate on")
    if per_channel:
        equalize(tower.encoder, torch.from_numpy(calibration))
    made = quantize_static(tower.encoder, to_proto(tower), calibration, per_channel=per_channel, progress=progress)
    int8 = sum(count for name, count in made.executed.items() if name in INTEGER)
    in_float = sum(made.executed.get(name, 0) for name in KINDS)
    note = (
        f"{int8} convolutions and products run as int8, {in_float} in float; "
        f"1 - cosine on calibration pictures {made.errors[0]:.4f} with all layers in int8, {made.errors[1]:.4f} as is; "
        "a processor without VNNI, or ARM's dot products, may saturate sums, and answer otherwise"
    )
    return made.model, {"note": note, "executed": made.executed, "kept_float": made.kept_float, "errors": made.errors}


def to_proto(tower: Tower) -> Any:
    """A tower as an `onnx.ModelProto`."""
    return proto_of(tower.exported(), INPUTS[tower.name])


def proto_of(program: torch.export.ExportedProgram, name: str) -> Any:
    """A graph with one input, to be called `name`, and one output, `features`, as an `onnx.ModelProto`.

    A batch of any size is called "batch". The paths and lines of the source, which the exporter notes, are left out.
    """
    with quiet():
        made = torch.onnx.export(
            program, input_names=[name], output_names=["features"], opset_version=OPSET, optimize=True, verbose=False
        )
    assert made is not None
    model = made.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output, graph):
        del part.metadata_props[:]
    any_size = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.value_info, *graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if any_size and size.dim_param == any_size:
                size.dim_param = "batch"
    return model


def load(path: Path) -> Runtime:
    """An artefact in ONNX Runtime, on the CPU with one thread."""
    return open_onnx(path)


def operators(model: Any) -> dict[str, int]:
    """How many nodes of each operator a graph has, the most frequent first."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def preprocessing_graph(preprocess: Preprocess, ir_version: int) -> Any:
    """A preprocessing as a graph: `pictures` uint8 [batch, height, width, 3] RGB -> `pixels` [batch, 3, size, size].

    The same steps in bytes as `Preprocess` takes, with ONNX Runtime's antialiased Resize, which is Pillow's method:
    bytes differ by at most 1 (bicubic: 2), few of them. It always resizes the whole of a picture, however long.
    """
    from onnx import parser

    size, config = preprocess.size, preprocess.config
    mean, std = (", ".join(map(str, values)) for values in (config.mean, config.std))
    return parser.parse_model(f"""
        <ir_version: {ir_version}, opset_import: ["": {OPSET}]>
        preprocess (uint8[batch, height, width, 3] {PICTURES}) => (float[batch, 3, {size}, {size}] pixels)
        <int64[1] size = {{{size}}}, int64[2] axes = {{2, 3}}, float half = {{0.5}}, float white = {{255.0}},
         float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] std = {{{std}}}>
        {{
            planes = Transpose <perm = [0, 3, 1, 2]> ({PICTURES})
            outer = Shape <end = 2> (planes)
            sides = Shape <start = 2> (planes)
            shorter = ReduceMin (sides)
            product = Mul (sides, size)
            new_sides = Div (product, shorter)
            shape = Concat <axis = 0> (outer, new_sides)
            resized = Resize <{_RESIZE[config.interpolation]}, antialias = 1, exclude_outside = 1> (planes, , , shape)
            beyond = Sub (new_sides, size)
            beyond_float = Cast <to = 1> (beyond)
            halves = Mul (beyond_float, half)
            rounded = Round (halves)
            first = Cast <to = 7> (rounded)
            last = Add (first, size)
            square = Slice (resized, first, last, axes)
            levels = Cast <to = 1> (square)
            unit = Div (levels, white)
            centred = Sub (unit, mean)
            pixels = Div (centred, std)
        }}""")
