"""The settings of a training run: one flat record, loadable from YAML, each field also a command-line flag."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mcliplib.errors import UserError
from mcliplib.files import read_yaml
from mcliplib.images import MAX_PIXELS
from mcliplib.precision import DType
from mcliplib.presets import get_config

LOWEST = {
    "samples": 1,
    "views": 1,
    "captions": 0,
    "batch_size": 1,
    "accumulate": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "image_size": 32,
    "context_length": 3,
    "workers": 0,
    "shuffle": 1,
    "max_pixels": 1,
    "seed": 0,
    "save_every": 1,
    "log_every": 1,
}


@dataclass(frozen=True)
class TrainSettings:
    """A training run; the defaults are the ten-minute run on two CPU cores.

    Attributes:
        preset: the model, one of `list_models()`.
        data: data sets, roles ("train") or shard paths.
        reinforced: whether `data` names reinforced sets, and the loss is the reinforced one.
        views: how many of a reinforced set's augmentations are used; all if None.
        captions: how many of its synthetic captions; all if None.
        teachers: which of its teachers, by their place from 0; all if None.
        distill_weight: lambda of the reinforced loss, from 0 (CLIP's) to 1 (distillation alone).
        synthetic_share: weight of the synthetic captions against the real ones; at a half, both count once.
        teacher_scales: inverse temperature of each teacher; one number stands for all of them.
        multi_positive: whether plain training takes all pairs with a picture's caption for right, not only its own.
        samples: image-text pairs to see in all.
        batch_size: pairs in a batch, over all processes; each picture is contrasted with all texts of its batch.
        accumulate: parts that a process encodes one after the other, for less memory; the batch is contrasted whole.
        learning_rate: AdamW's peak learning rate.
        weight_decay: on matrices and convolution kernels only.
        beta2: AdamW's second-moment decay.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        clip_norm: the gradient's norm is cut to this.
        ema: decay of the weights' moving average, which is then what is saved as the model; no average if None.
        min_crop: smallest share of the picture's area that RandomResizedCrop keeps.
        mirror: how often a crop is mirrored left to right.
        jitter: half-width of the random gain of each colour channel.
        keyword_captions: how often a caption carries some of the sample's keywords, where it has any.
        image_size: pixels; the preset's if None.
        context_length: tokens per text; the preset's if None.
        restrict_vocab: whether to keep only the embedding rows that the training texts use; not with a stream, whose
            texts nobody knows beforehand.
        dtype: what the towers compute in, "float32" or "bfloat16"; "auto" is what is faster here (`precision.py`).
            Weights and loss stay float32.
        stream: whether to read the shards again and again instead of keeping them in memory. If None, it is done for
            shards elsewhere (URLs), and above 1 GB.
        workers: processes that make a stream's batches; if None, none beside a CPU, and up to six for a GPU.
        shuffle: samples of a stream among which the next one is drawn.
        verify: whether a reinforced set's shards are compared with the hashes in its manifest before they are streamed,
            which reads them all once. A set in memory always is.
        max_pixels: a picture that announces more is left out.
        seed: of the weights, the order and the augmentations.
        save_every: steps between checkpoints.
        log_every: steps between lines in the metrics.
    """

    preset: str = "mobileclip_nano"
    data: tuple[str, ...] = ("train",)
    reinforced: bool = False
    views: int | None = None
    captions: int | None = None
    teachers: tuple[int, ...] | None = None
    distill_weight: float = 1.0
    synthetic_share: float = 0.5
    teacher_scales: tuple[float, ...] = (100.0,)
    multi_positive: bool = False
    samples: int = 205_000
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.2
    beta2: float = 0.98
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema: float | None = None
    min_crop: float = 0.6
    mirror: float = 0.0
    jitter: float = 0.0
    keyword_captions: float = 0.2
    image_size: int | None = None
    context_length: int | None = None
    restrict_vocab: bool = True
    dtype: DType = "auto"
    stream: bool | None = None
    workers: int | None = None
    shuffle: int = 2000
    verify: bool = False
    max_pixels: int = MAX_PIXELS
    seed: int = 0
    save_every: int = 250
    log_every: int = 10

    @property
    def steps(self) -> int:
        """Optimizer steps in the whole run."""
        return max(1, round(self.samples / self.batch_size))

    def __post_init__(self) -> None:
        get_config(self.preset)
        if self.dtype not in get_args(DType):
            raise UserError(f"unknown dtype {self.dtype!r}; known: {', '.join(get_args(DType))}")
        if not self.data:
            raise UserError("data names no set")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if any(isinstance(one, float) and not math.isfinite(one) for one in _each(value)):
                raise UserError(f"{field.name} must be finite, got {value}")
        for name, low in LOWEST.items():
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise UserError(f"beta2 must be in [0, 1), got {self.beta2}")
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2: a contrastive loss needs something to contrast")
        if self.clip_norm <= 0:
            raise UserError(f"clip_norm must be positive, got {self.clip_norm}; a large one cuts nothing")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"ema must be in (0, 1), got {self.ema}")
        for name in ("distill_weight", "synthetic_share", "mirror", "keyword_captions"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not self.teacher_scales or min(self.teacher_scales) <= 0:
            raise UserError(f"teacher_scales must be positive numbers, got {list(self.teacher_scales)}")
        if self.synthetic_share != 0.5 and (not self.reinforced or self.captions == 0):
            raise UserError(
                "synthetic_share weighs the synthetic captions of a reinforced set, and there are none here"
            )
        if self.reinforced and self.multi_positive:
            raise UserError("multi_positive is a form of plain training; a reinforced set has the teachers' answers")
        if not 0 < self.min_crop <= 1:
            raise UserError(f"min_crop must be in (0, 1], got {self.min_crop}")
        if not 0 <= self.jitter < 1:
            raise UserError(f"jitter must be in [0, 1), got {self.jitter}")


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def load_settings(path: str | Path, **overrides: Any) -> TrainSettings:
    """Settings from a YAML file of TrainSettings' fields, then the overrides.

    Raises:
        UserError: no such file, not YAML, or a field that does not exist.
    """
    path = Path(path)
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `field: value` lines")
    return settings_from({**values, **overrides}, source=str(path))


def settings_from(values: dict[str, Any], source: str = "settings") -> TrainSettings:
    """Settings from plain values, lists becoming tuples.

    Raises:
        UserError: a field that does not exist, or a value that does not fit; names `source`.
    """
    known = {field.name for field in dataclasses.fields(TrainSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"{source}: no such setting: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    hints = get_type_hints(TrainSettings)
    return TrainSettings(**{name: _fitted(name, value, hints[name], source) for name, value in values.items()})


def _fitted(name: str, value: Any, hint: Any, source: str) -> Any:
    """The value as the field's type; YAML reads 2e-3 as a text, one data set as no list."""
    if value is None and type(None) in get_args(hint):
        return None
    wanted = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    if value is None:
        raise UserError(f"{source}: {name} must be {getattr(wanted, '__name__', wanted)}, got None")
    if get_origin(wanted) is tuple:
        values = value if isinstance(value, list | tuple) else (value,)
        return tuple(_fitted(name, one, get_args(wanted)[0], source) for one in values)
    if get_origin(wanted) is Literal:
        return value
    try:
        if wanted is bool and not isinstance(value, bool):
            raise ValueError
        if wanted is int and float(value) != int(value):
            raise ValueError
        return wanted(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{source}: {name} must be {wanted.__name__}, got {value!r}") from None
