"""ExecuTorch, for phones: a program whose operators run in XNNPACK where it has them, else in portable kernels.

The batch is dynamic, up to `MOST_BATCH`.
"""

from pathlib import Path
from typing import Any

import torch

from mcliplib.export.towers import MOST_BATCH, Tower
from mcliplib.export.verify import Runtime
from mcliplib.latency.worker import open_executorch
from mcliplib.quiet import quiet

SUFFIX = ".pte"
NEEDS = ("executorch", "torchao")
EXTRA = "runtimes"
PRECISIONS = ("float32", "float16")
REFUSED = {
    "bfloat16": "XNNPACK has no bfloat16 convolutions",
    "int8": "it is not done yet; onnx, openvino and litert have it",
}


def convert(tower: Tower, path: Path, precision: str, **_: Any) -> dict[str, Any]:
    """Write a tower as a program with one method, `forward`.

    Args:
        tower: in float32.
        path: the .pte file.
        precision: "float32" or "float16".

    Returns:
        What the card says of it: how many parts of the graph XNNPACK takes.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    dtype = torch.float16 if precision == "float16" else torch.float32
    with quiet():
        lowered = to_edge_transform_and_lower(
            tower.computing_in(dtype).exported(most=MOST_BATCH), partitioner=[XnnpackPartitioner()]
        )
        parts = sum(node.target == torch.ops.higher_order.executorch_call_delegate
                    for node in lowered.exported_program().graph.nodes)  # fmt: skip
        program = lowered.to_executorch()
    path.write_bytes(program.buffer)
    return {"note": f"XNNPACK computes {parts} parts of the graph; batches up to {MOST_BATCH}"}


def load(path: Path) -> Runtime:
    """An artefact in ExecuTorch's own runtime."""
    return open_executorch(path)
