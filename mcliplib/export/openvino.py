"""OpenVINO's own format, converted from a graph of PyTorch's: `NAME.xml` and, beside it, the weights, `NAME.bin`.

float16 stores the weights so, and the runtime chooses what it computes in. int8 is that of the ONNX file, converted:
the same layers stay in float. (NNCF answers as well for the student, but not where channels differ in range, as the
record `int8` shows.)
A text tower in int8 is larger than the ONNX file, about half of its float32 size.
"""

from pathlib import Path
from typing import Any

from mcliplib.export import onnx as onnx_format
from mcliplib.export.towers import INPUTS, MOST_BATCH, Tower
from mcliplib.export.verify import Runtime
from mcliplib.latency.worker import open_openvino
from mcliplib.quiet import quiet

SUFFIX = ".xml"
NEEDS = ("openvino", *onnx_format.NEEDS)
EXTRA = "export,runtimes"
PRECISIONS = ("float32", "float16", "int8")
REFUSED = {"bfloat16": "OpenVINO stores weights in float32, float16 or int8"}


def convert(tower: Tower, path: Path, precision: str, **options: Any) -> dict[str, Any]:
    """Write a tower, for any batch, with the input and output names of the ONNX files.

    Args:
        tower: in float32.
        path: the .xml file.
        precision: "float32", "float16" or "int8".
        options: for int8, those of the ONNX format.

    Returns:
        What the card says of it; the counts of int8 are ONNX Runtime's.
    """
    import openvino

    about: dict[str, Any] = {}
    with quiet():
        if precision == "int8":
            between = path.with_suffix(".onnx")
            about = onnx_format.convert(tower, between, precision, **options)
            model = openvino.convert_model(between)
            between.unlink()
        else:
            model = openvino.convert_model(tower.exported(most=MOST_BATCH))
        model.reshape({0: [-1, *tower.shape]})
        model.inputs[0].get_tensor().set_names({INPUTS[tower.name]})
        model.outputs[0].get_tensor().set_names({"features"})
        openvino.save_model(model, path, compress_to_fp16=precision == "float16")
    one = [1, *tower.shape]
    notes = [about["note"]] if "note" in about else []
    notes.append(f"any batch; if you know yours, model.reshape({one}) before compiling makes it faster")
    return {"note": "; ".join(notes)} | {name: about[name] for name in ("kept_float", "errors") if name in about}


def load(path: Path) -> Runtime:
    """An artefact on the CPU with one thread, computing in float32 where it is not int8."""
    return open_openvino(path)
