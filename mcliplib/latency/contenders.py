"""The contenders of `mcliplib benchmark runtimes`: a tower in PyTorch and in every format, and the peer's likewise."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.export.exporting import find_format
from mcliplib.export.onnx import proto_of
from mcliplib.export.towers import Tower
from mcliplib.factory import create_model
from mcliplib.latency.flops import CONVOLVED, convolution
from mcliplib.latency.peers import SEED, TowerKind, example_for, get_peer, peer_run, randomize_statistics, tower_of
from mcliplib.latency.runtimes import Contender
from mcliplib.latency.tuning import WAYS, prepare
from mcliplib.model import MobileCLIP
from mcliplib.presets import get_config

PEER_OF: dict[TowerKind, str] = {"image": "timm", "text": "open_clip"}
OUR_WAYS = ("eager", "ahead_of_time", "ahead_of_time_bf16")
FORMATS = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "executorch": ("float32", "int8"),
    "litert": ("float32", "int8"),
}
_IN_OPENVINO = ("float32", "bfloat16")  # what an ONNX file can be computed in there
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch", "litert": "litert"}


def torch_run(
    model: str, tower: TowerKind, peer: str | None = None, way: str | None = None, batch: int = 1
) -> Callable[[Tensor], Tensor]:
    """A tower with seeded weights in PyTorch: a peer's, or ours, folded and run in one of `WAYS`.

    Args:
        model: a preset's name, or a checkpoint.
        tower: which of the two.
        peer: whose.
        way: how ours is run.
        batch: what it is prepared for.

    Raises:
        UserError: unknown names, or that way does not work here.
    """
    if peer is not None:
        return peer_run(get_peer(peer), model)
    ours = seeded_model(model)
    ways = [one for one in WAYS if one.name == way]
    (candidate,) = prepare(tower_of(ours, tower), example_for(ours, tower, batch), ways)
    if candidate.run is None:
        raise UserError(f"{way}: {candidate.dropped}")
    return candidate.run


def seeded_model(name: str) -> MobileCLIP:
    """A checkpoint or "student", or a preset with random weights that reach the features, the same in every process.

    Raises:
        UserError: no such file, or no such preset.
    """
    if name == "student" or Path(name).suffix:
        return create_model(pretrained=name)
    torch.manual_seed(SEED)
    model = create_model(name)
    randomize_statistics(model)
    return model


def make_contenders(
    name: str,
    model: MobileCLIP,
    tower: TowerKind,
    folder: Path,
    calibration: np.ndarray | None,
    progress: Callable[[str], None],
) -> list[Contender]:
    """Write a tower in all formats, and the peer's, as far as it has one and the formats' packages are there.

    Args:
        name: a preset's, or a checkpoint; other processes find the model by it.
        model: `seeded_model(name)`.
        tower: which of the two.
        folder: to write to.
        calibration: pixels [N, 3, H, W], for the image tower in int8; None for the text tower.
        progress: told one line for each step.
    """
    plain = Tower(model, tower)
    peer = PEER_OF[tower]
    made: list[Contender] = []
    if name in get_peer(peer).models:
        made += [_in_torch(peer, folder, model=name, tower=tower, peer=peer)]
        made += _peers_exports(peer, name, folder, plain.example(1), progress)
    for way in OUR_WAYS:
        made.append(_in_torch(way, folder, model=name, tower=tower, way=way))
    for format, precisions in FORMATS.items():
        made += _exports(plain, format, precisions, folder, calibration, progress)
    return made


def make_kernels(folder: Path) -> list[Contender]:
    """One dense convolution, in the runtimes with the fastest kernels: how fast this machine can be (`flops`).

    Raises:
        UserError: the packages that write it are missing; says what to install.
    """
    find_format("onnx")
    path = folder / "convolution.onnx"
    _write_onnx(convolution().eval(), torch.zeros(CONVOLVED), path)
    return [
        Contender("onnxruntime float32", "onnxruntime", path),
        *(Contender(f"openvino {one}", "openvino", path, one) for one in _IN_OPENVINO),
    ]


def _write_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    import onnx

    with torch.no_grad():
        program = torch.export.export(module, (example,), strict=False)
    onnx.save(proto_of(program, "inputs"), path)


def _in_torch(name: str, folder: Path, **arguments: Any) -> Contender:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(arguments), encoding="utf-8")
    ours = arguments.get("peer") is None
    return Contender(f"pytorch {name}" if ours else name, "torch", path, ours=ours)


def _exports(
    plain: Tower,
    format: str,
    precisions: Sequence[str],
    folder: Path,
    calibration: np.ndarray | None,
    progress: Callable[[str], None],
) -> Iterator[Contender]:
    try:
        writer = find_format(format)
    except UserError as error:
        progress(f"{format}: {error}")
        return
    for precision in precisions:
        stored = "float32" if precision == "bfloat16" else precision  # OpenVINO chooses when it loads
        path = folder / f"{format}-{stored}{writer.SUFFIX}"
        if (format, precision) == ("openvino", "int8") and (other := folder / "onnx-int8.onnx").exists():
            path = other  # the same layers in bytes; to find them again takes minutes
        if not path.exists():
            progress(f"writing {path.name}")
            writer.convert(plain, path, stored, calibration=calibration)
        yield Contender(f"{_RUNTIMES[format]} {precision}", _RUNTIMES[format], path, precision)


def _peers_exports(
    peer: str, model: str, folder: Path, example: Tensor, progress: Callable[[str], None]
) -> Iterator[Contender]:
    """The peer's tower in ONNX, for both runtimes that read it; none without the packages that write it."""
    try:
        find_format("onnx")
    except UserError as error:
        progress(f"{peer} in ONNX: {error}")
        return
    package = get_peer(peer)
    theirs: nn.Module = package.build(package.models[model], get_config(model).embed_dim)
    path = folder / f"{peer}.onnx"
    progress(f"writing {path.name}")
    _write_onnx(theirs, example, path)
    yield Contender(f"onnxruntime {peer}", "onnxruntime", path, ours=False)
    for precision in _IN_OPENVINO:
        yield Contender(f"openvino {peer} {precision}", "openvino", path, precision, ours=False)
