"""LiteRT, once TensorFlow Lite, for Android and others: a .tflite file, for one input at a time.

Tokens are int32: its arg max takes no int64. float16 stores the weights so. int8 stores the weights of convolutions and
products as bytes, with a step for each output channel. Activations are quantized as they come (dynamic), so it needs no
calibration.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcliplib.export.towers import Tower
from mcliplib.export.verify import Runtime
from mcliplib.latency.worker import open_litert
from mcliplib.quiet import quiet

SUFFIX = ".tflite"
NEEDS = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
EXTRA = "litert"
PRECISIONS = ("float32", "float16", "int8")
REFUSED = {"bfloat16": "LiteRT stores weights in float32, float16 or int8"}


def convert(tower: Tower, path: Path, precision: str, **_: Any) -> dict[str, Any]:
    """Write a tower.

    Args:
        tower: in float32.
        path: the .tflite file.
        precision: "float32", "float16" or "int8".

    Returns:
        What the card says of it.
    """
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    example = tower.example(1)
    example = example if example.is_floating_point() else example.to(torch.int32)
    with quiet():
        litert_torch.convert(tower, (example,)).export(str(path))
        if precision != "float32":
            made = quantizer.Quantizer(path.read_bytes())
            if precision == "int8":
                made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            else:
                _store_as_float16(made)
            made.quantize().export_model(str(path), overwrite=True)
    note = "one input at a time"
    return {"note": f"{note}; int8 weights, activations as they come" if precision == "int8" else note}


def _store_as_float16(made: Any) -> None:
    from ai_edge_quantizer import qtyping

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    made.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key="float_casting",
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
        ),
    )


def load(path: Path) -> Runtime:
    """An artefact in LiteRT, on the CPU with one thread, one input after the other."""
    run = open_litert(path)
    return lambda inputs: np.concatenate([run(one[None]) for one in inputs])
