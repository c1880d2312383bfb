"""Export a model: convert its towers, run what came out beside PyTorch, and only then give the folder its name.

The extra `export` (`pip install 'mcliplib[export]'`) takes 121 MB on Linux: onnxruntime 78, onnx 31, onnxscript 8, and
what they need 4. The extra `runtimes` adds OpenVINO (180 MB), ExecuTorch with torchao and what they need (288 MB), and
Core ML's tools, which are among them. The extra `litert` adds 745 MB: jaxlib 349, its converter 288, the runtime 59.

- `onnx`: float32, float16, bfloat16 (weights only; it computes in float32) and int8 are verified.
- `openvino`: float32, float16 and int8 are verified; bfloat16 is refused (weights are float32, float16 or int8).
- `executorch`: float32, float16 and int8 are verified; bfloat16 is refused (XNNPACK has none).
- `litert`: float32, float16 (weights only) and int8 (activations as they come) are verified; bfloat16 is refused.
- `coreml`: float32 and float16 are converted, and verified on macOS, where Core ML runs; others are refused.
"""

import importlib
import importlib.metadata
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch

from mcliplib.checkpoints.formats import config_from_json, config_to_json
from mcliplib.errors import UserError
from mcliplib.evaluate.suite import captions_and_pairs
from mcliplib.export.folder import CARD, Card, write_beside
from mcliplib.export.towers import INPUTS, TOWERS, Tower, TowerName
from mcliplib.export.verify import (
    JUDGED,
    LEAST_AGREEMENT,
    Agreement,
    CannotRun,
    ExportedEncoder,
    Inputs,
    Runtime,
    agreement,
    calibration_inputs,
    check_cosine,
    find_inputs,
    in_batches,
    least_cosine,
)
from mcliplib.factory import get_preprocess, get_tokenizer
from mcliplib.files import blaming, fitted, new_folder, read_json
from mcliplib.model import MobileCLIP
from mcliplib.preprocess import Preprocess

Format = Literal["onnx", "openvino", "executorch", "litert", "coreml"]
FORMATS: tuple[Format, ...] = get_args(Format)
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
CALIBRATED = ("onnx", "openvino", "executorch")  # whose int8 has ranges of activations, measured on pictures
_EDGE_TEXTS = ("", "é ☂ 漢字", "a very long text " * 40)


def export(
    model: MobileCLIP,
    path: str | Path,
    format: str = "onnx",
    tower: str = "both",
    precision: str = "float32",
    calibration: str | Path | None = None,
    *,
    preprocessing: bool = False,
    per_channel: bool = True,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Card:
    """Write a folder with a model's folded towers for another runtime, verified.

    The folder appears once pictures and texts have gone through each artefact, in its own runtime, and through PyTorch,
    in batches of 1, 2, 7 and 16 (pictures as bytes one by one), with a smallest cosine of at least 0.9999 (float32) or
    0.999 (float16, bfloat16).
    int8 is judged by what it is for: how many of 300 pictures, of another set than that of the calibration, find the
    same text first as with the float model; at least 75% must.

    Args:
        model: in eval mode; it is untouched.
        path: the folder; must not exist, or be empty.
        format: one of `FORMATS`.
        tower: "image", "text" or "both".
        precision: one of `PRECISIONS`; the module says what each format does with it.
        calibration: for int8, a folder of pictures like those it is for, or the name of a shipped set.
        preprocessing: put resizing, cropping and scaling into the image graph, which then takes bytes (ONNX only).
        per_channel: for int8, a step for each output channel, and all that is done against errors; False is to compare.
        force: write an int8 model even if it agrees with the float one too seldom.
        progress: told what is done next.

    Returns:
        What `card.json` holds.

    Raises:
        UserError: unknown or refused arguments, or ones that would do nothing, a missing package, a folder that is not
            empty, or an artefact that does not compute what PyTorch computes. No folder is left behind.
        WriteError: the folder cannot be written.
        RuntimeError: the model is in train mode.
    """
    writer = find_format(format)
    names = [name for name in TOWERS if tower in (name, "both")]
    calibrated = precision == "int8" and "image" in names and format in CALIBRATED
    _check_options(format, writer, names, precision, preprocessing=preprocessing, force=force)
    if (calibration is not None or not per_channel) and not calibrated:
        raise UserError(
            f"--calibrate and --per-tensor are for the image tower in int8, in {', '.join(CALIBRATED)}; "
            "here they would do nothing"
        )
    card: Card = {
        "model": model.config.name,
        "format": format,
        "precision": precision,
        "config": config_to_json(model.config),
        "bytes_in": preprocessing,
        "embed_dim": model.config.embed_dim,
        "logit_scale": float(model.scale.detach()),
        "towers": {},
        "versions": _versions(writer),
    }
    pixels = None
    if calibrated:
        if calibration is None:
            raise UserError("int8 needs pictures to calibrate on: --calibrate FOLDER, or the name of a shipped set")
        pixels = tower_inputs(model, "image", calibration_inputs(calibration))
        card["calibration"] = {"source": Path(calibration).resolve().name, "n": len(pixels)}
    with new_folder(Path(path)) as folder:
        inputs = find_inputs()
        for name in names:
            progress(f"exporting the {name} tower")
            plain, artefact = Tower(model, name), folder / f"{name}{writer.SUFFIX}"
            preprocess = get_preprocess(model) if preprocessing and name == "image" else None
            about = writer.convert(
                plain,
                artefact,
                precision,
                preprocess=preprocess,
                calibration=pixels if name == "image" else None,
                per_channel=per_channel,
                progress=progress,
            )
            progress(f"verifying the {name} tower")
            verified = _verify(model, plain, artefact, writer, inputs, precision, bytes_in=preprocess is not None)
            card["towers"][name] = _about(plain, artefact, preprocess) | about | {"verified": verified}
        if precision == "int8":
            progress("comparing int8 with float")
            runtimes = {name: writer.load(folder / f"{name}{writer.SUFFIX}") for name in names}
            judged = _judge(model, runtimes, calibration, bytes_in=preprocessing)
            card["agreement"] = judged._asdict()
            if judged.same_first < LEAST_AGREEMENT and not force:
                raise UserError(
                    f"int8 finds another text first than float for {100 * (1 - judged.same_first):.0f}% of {judged.n} "
                    f"pictures ({judged.source}); nothing was written. Calibrate on other pictures, or add --force"
                )
        write_beside(folder, model.config, card)
    return card


def _check_options(
    format: str, writer: ModuleType, names: list[TowerName], precision: str, *, preprocessing: bool, force: bool
) -> None:
    """Raise a UserError for options that are unknown, refused or without effect together."""
    if precision not in PRECISIONS or not names:
        raise UserError(f"precision is one of {', '.join(PRECISIONS)}, tower one of image, text, both")
    if precision not in writer.PRECISIONS:
        raise UserError(f"format {format} is not written in {precision}: {writer.REFUSED[precision]}")
    if preprocessing and (format != "onnx" or "image" not in names):
        raise UserError("only the image tower in onnx can hold the preprocessing; else it is beside it, as JSON")
    if force and precision != "int8":
        raise UserError("--force is for int8; other precisions are never written when they are wrong")


class _Towers(TypedDict, total=False):
    image: dict[str, Any]
    text: dict[str, Any]


class _Card(TypedDict):
    format: Format
    config: str
    bytes_in: bool
    towers: _Towers


def load_exported(folder: str | Path) -> ExportedEncoder:
    """The encoder of a folder that `mcliplib export` wrote.

    Raises:
        UserError: it is no such folder, its card is broken, or the format's packages are missing.
    """
    path = Path(folder) / CARD
    card = fitted(read_json(path), _Card, f"{path}: is not the card of an export")
    writer = find_format(card["format"])
    towers = [name for name in TOWERS if name in card["towers"]]
    runtimes = {name: _loaded(writer, Path(folder) / f"{name}{writer.SUFFIX}") for name in towers}
    return ExportedEncoder(config_from_json(card["config"], str(path)), runtimes, bytes_in=card["bytes_in"])


def _loaded(writer: ModuleType, artefact: Path) -> Runtime:
    if not artefact.exists():
        raise UserError(f"{artefact}: is missing, and {CARD} names it; write the folder anew with mcliplib export")
    try:
        with blaming(f"{artefact}: cannot be read", "; write the folder anew with mcliplib export"):
            runtime: Runtime = writer.load(artefact)
    except CannotRun as error:
        raise UserError(f"{artefact}: {error}") from error
    return runtime


def find_format(format: str) -> ModuleType:
    """The module of a format, whose packages are there.

    Raises:
        UserError: no such format, or a missing package; says what to install.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: it is one of {', '.join(FORMATS)}")
    module = importlib.import_module(f"mcliplib.export.{format}")
    if missing := [name for name in module.NEEDS if importlib.util.find_spec(name) is None]:
        raise UserError(f"format {format} needs {', '.join(missing)}: pip install 'mcliplib[{module.EXTRA}]'")
    return module


def tower_inputs(model: MobileCLIP, name: TowerName, inputs: Inputs) -> np.ndarray:
    """Pictures as pixels [N, 3, H, W], or captions, and some difficult texts, as tokens [M, T]."""
    if name == "text":
        texts = [*_EDGE_TEXTS, *(sample.caption for sample in inputs.samples)]
        return get_tokenizer(model)(texts).numpy()
    return torch.stack([get_preprocess(model)(image) for image in inputs.images]).numpy()


def _verify(
    model: MobileCLIP,
    plain: Tower,
    artefact: Path,
    writer: ModuleType,
    inputs: Inputs,
    precision: str,
    *,
    bytes_in: bool,
) -> dict[str, Any]:
    """The card's entry about the verification."""
    arrays = tower_inputs(model, plain.name, inputs)
    about: dict[str, Any] = {"n": len(arrays), "source": inputs.source}
    try:
        runtime: Runtime = writer.load(artefact)
    except CannotRun as error:
        return about | {"cannot_run": str(error)}
    batches = [np.asarray(image)[None] for image in inputs.images] if bytes_in else in_batches(arrays)
    cosine = least_cosine(runtime, batches, plain.reference(arrays))
    check_cosine(cosine, precision, f"the {plain.name} tower in {precision}")
    return about | {"least_cosine": cosine}


def _judge(
    model: MobileCLIP, runtimes: dict[TowerName, Runtime], calibration: str | Path | None, *, bytes_in: bool
) -> Agreement:
    """The quantized towers, and for one that is not quantized the float one, on pictures that calibrated nothing."""
    inputs = find_inputs(JUDGED, but=str(calibration))
    texts = captions_and_pairs(inputs.samples)[0]
    whole: dict[TowerName, Runtime] = {name: Tower(model, name).reference for name in TOWERS}
    plain = ExportedEncoder(model.config, whole)
    quantized = ExportedEncoder(model.config, whole | runtimes, bytes_in=bytes_in and "image" in runtimes)
    features = [(one.encode_images(inputs.images), one.encode_texts(texts)) for one in (plain, quantized)]
    return agreement(features[0], features[1], inputs)


def _about(plain: Tower, artefact: Path, preprocess: Preprocess | None) -> dict[str, Any]:
    shape = ["batch", *plain.shape]
    given: dict[str, Any] = {
        "name": INPUTS[plain.name],
        "dtype": "float32" if plain.name == "image" else "int64",
        "shape": shape,
    }
    if preprocess is not None:
        given = {"name": "pictures", "dtype": "uint8", "shape": ["batch", "height", "width", 3]}
    features = {"name": "features", "dtype": "float32", "shape": ["batch", plain.config.embed_dim]}
    size = size_of([artefact, artefact.with_suffix(".bin")])  # OpenVINO's weights
    return {"file": artefact.name, "bytes": size, "input": given, "output": features}


def size_of(paths: Sequence[Path]) -> int:
    """Bytes of files, and of all files in folders."""
    files = itertools.chain.from_iterable([path] if path.is_file() else path.rglob("*") for path in paths)
    return sum(file.stat().st_size for file in files if file.is_file())


def _versions(writer: ModuleType) -> dict[str, str]:
    return {name: _version(name) for name in ("mcliplib", "torch", *writer.NEEDS)}


def _version(module: str) -> str:
    """Of the package that a module is from, which may have another name, as `onnxruntime-gpu`."""
    packages = importlib.metadata.packages_distributions().get(module, [module])
    return importlib.metadata.version(packages[0])
