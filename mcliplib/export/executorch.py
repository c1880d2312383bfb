"""ExecuTorch, for phones: a program whose operators run in XNNPACK where it has them, else in portable kernels.

The batch is dynamic, up to `MOST_BATCH`. int8 is that of XNNPACK's quantizer: of an image tower all layers, with ranges
of activations measured on calibration pictures; of a text tower the linear layers' weights, while activations are
quantized as they come, and the embedding, the largest part, stays in float.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mcliplib.export.towers import MOST_BATCH, Tower, exported
from mcliplib.export.verify import Runtime
from mcliplib.latency.worker import open_executorch
from mcliplib.quantize.equalize import equalize
from mcliplib.quiet import quiet

SUFFIX = ".pte"
NEEDS = ("executorch", "torchao")
EXTRA = "runtimes"
PRECISIONS = ("float32", "float16", "int8")
REFUSED = {"bfloat16": "XNNPACK has no bfloat16 convolutions"}
_CHUNK = 16  # pictures of which all activations are held at once


def convert(
    tower: Tower,
    path: Path,
    precision: str,
    *,
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    **_: Any,
) -> dict[str, Any]:
    """Write a tower as a program with one method, `forward`.

    Args:
        tower: in float32.
        path: the .pte file.
        precision: "float32", "float16" or "int8".
        calibration: [N, 3, H, W], for an image tower in int8.
        per_channel: for int8, a step for each output channel, and equalized layers; else a step for each tensor.

    Returns:
        What the card says of it: how many parts of the graph XNNPACK takes.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quiet():
        if precision == "int8":
            program = _quantized(tower, calibration, per_channel)
        else:
            dtype = torch.float16 if precision == "float16" else torch.float32
            program = tower.computing_in(dtype).exported(most=MOST_BATCH)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        parts = sum(node.target == torch.ops.higher_order.executorch_call_delegate
                    for node in lowered.exported_program().graph.nodes)  # fmt: skip
        written = lowered.to_executorch().buffer
    path.write_bytes(written)
    return {"note": f"XNNPACK computes {parts} parts of the graph; batches up to {MOST_BATCH}"}


def _quantized(tower: Tower, calibration: np.ndarray | None, per_channel: bool) -> torch.export.ExportedProgram:
    """A quantized tower as a graph: with pairs of quantize and dequantize, which XNNPACK fuses into integer kernels."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = xnnpack.XNNPACKQuantizer()
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=calibration is None)
    if calibration is None:
        quantizer.set_module_type(nn.Linear, config)
        inputs = [tower.example()]
    else:
        quantizer.set_global(config)
        inputs = list(torch.from_numpy(calibration).split(_CHUNK))
        if per_channel:
            tower = copy.deepcopy(tower)
            equalize(tower.encoder, torch.from_numpy(calibration))
    prepared = prepare_pt2e(tower.exported(most=MOST_BATCH).module(), quantizer)
    for part in inputs:
        prepared(part)
    return exported(convert_pt2e(prepared), tower.example(MOST_BATCH), MOST_BATCH)


def load(path: Path) -> Runtime:
    """An artefact in ExecuTorch's own runtime."""
    return open_executorch(path)
