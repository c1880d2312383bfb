"""Core ML, for Apple's devices: an `.mlpackage` with an ML program, for one input at a time.

Core ML runs on macOS only. Elsewhere the conversion is done, and the card says that nobody ran the result. The batch is
fixed at 1, since the Neural Engine does not take a shape that varies. Tokens are int32: Core ML has no int64.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcliplib.export.towers import INPUTS, Tower
from mcliplib.export.verify import CannotRun, Runtime
from mcliplib.quiet import quiet

SUFFIX = ".mlpackage"
NEEDS = ("coremltools",)
EXTRA = "runtimes"
PRECISIONS = ("float32", "float16")
REFUSED = {
    "bfloat16": "Core ML computes in float32 or float16",
    "int8": "what it would cost can be measured on macOS only",
}
_SYSTEM = "iOS17"  # and macOS 14: the oldest with all the operators


def convert(tower: Tower, path: Path, precision: str, **_: Any) -> dict[str, Any]:
    """Write a tower as an ML program.

    Args:
        tower: in float32.
        path: the .mlpackage folder.
        precision: "float32" or "float16", of weights and arithmetic; features are float32.

    Returns:
        What the card says of it.
    """
    import coremltools

    target = getattr(coremltools.target, _SYSTEM)
    compute = coremltools.precision.FLOAT16 if precision == "float16" else coremltools.precision.FLOAT32
    kind = np.float32 if tower.name == "image" else np.int32
    with quiet(), torch.no_grad():
        program = torch.export.export(tower, (tower.example(1),), strict=False).run_decompositions({})
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(name=INPUTS[tower.name], shape=(1, *tower.shape), dtype=kind)],
            outputs=[coremltools.TensorType(name="features", dtype=np.float32)],
            minimum_deployment_target=target,
            compute_precision=compute,
            skip_model_load=True,
        )
        model.short_description = f"{tower.config.name}, {tower.name} tower"
        model.save(path)
    return {"note": f"one input at a time; {_SYSTEM} or macOS 14, or newer"}


def load(path: Path) -> Runtime:
    """An artefact in Core ML.

    Raises:
        CannotRun: this is no Mac.
    """
    import coremltools

    if not coremltools.utils._is_macos():
        raise CannotRun("Core ML runs on macOS only")
    model = coremltools.models.MLModel(str(path))
    (name,) = [one.name for one in model.get_spec().description.input]

    def run(inputs: np.ndarray) -> np.ndarray:
        given = inputs.astype(np.int32) if np.issubdtype(inputs.dtype, np.integer) else inputs
        return np.concatenate([model.predict({name: one[None]})["features"] for one in given])

    return run
