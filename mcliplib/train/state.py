"""The state that a run resumes from: one file, replaced as a whole."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from mcliplib.checkpoints.files import check_finite, check_tensors, load_torch
from mcliplib.checkpoints.formats import config_to_json
from mcliplib.errors import UserError, first_line
from mcliplib.files import Range, fitted, read_json, replacing
from mcliplib.model import MobileCLIP

STATE_FILE = "last.pt"
_M = TypeVar("_M", bound=nn.Module)


@dataclass(frozen=True)
class Learner(Generic[_M]):
    """The parts that a run changes."""

    model: _M
    optimizer: torch.optim.Optimizer
    average: _M | None  # of the weights, where the settings want one

    @property
    def result(self) -> _M:
        """The model that is evaluated and saved: the average where there is one."""
        return self.model if self.average is None else self.average


class Resumed(NamedTuple):
    """Where a run stands."""

    step: int  # steps taken
    seconds: float  # time spent on them
    loss: float  # of the last one
    positions: Mapping[int, tuple[int, ...]] = {}  # of a stream's readers, by their number


def save_state(directory: Path, settings: Any, digest: str, learner: Learner[_M], at: Resumed) -> None:
    """Write weights, optimizer and position; a crash of the program or the machine leaves the earlier file.

    Args:
        directory: of the run.
        settings: all of the run's, a dataclass.
        digest: hash of the data.
        learner: what is saved.
        at: where the run stands.

    Raises:
        WriteError: the file cannot be written; the earlier one is still there.
    """
    state = {
        "settings": json.dumps(dataclasses.asdict(settings)),
        **({"config": config_to_json(learner.model.config)} if isinstance(learner.model, MobileCLIP) else {}),
        "data": digest,
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "average": None if learner.average is None else learner.average.state_dict(),
        "step": at.step,
        "seconds": at.seconds,
        "loss": at.loss,
        "positions": {str(reader): list(position) for reader, position in at.positions.items()},
    }
    with replacing(directory / STATE_FILE) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(directory: Path, settings: Any, digest: str, learner: Learner[_M], steps: int) -> Resumed:
    """Continue from the folder's state.

    Args:
        directory: of the run.
        settings: all of the run's, a dataclass with defaults.
        digest: hash of the data.
        learner: takes over what was saved.
        steps: of the whole run.

    Raises:
        UserError: the file is broken, or belongs to a run with other settings (which ones is said) or other data.
    """
    path = directory / STATE_FILE
    try:
        state = fitted(load_torch(path), _State, str(path))
        named = f"{path}: settings"
        saved = fitted(read_json(state["settings"], named, most=1 << 22), dict[str, Any], named)
        if changed := _changed(saved, settings):
            raise _OtherRunError(f"{path}: has other settings ({'; '.join(changed)}); choose another --output")
        if state["data"] != digest:
            raise _OtherRunError(f"{path}: is of other data under the same names; choose another --output")
        if state["step"] > steps:
            raise UserError(f"{path}: step {state['step']:,} is after the last one, {steps:,}")
        for name, module in (("model", learner.model), ("average", learner.average)):
            if module is not None:
                check_tensors(state[name], f"{path}: {name}")
                check_finite(state[name], f"{path}: {name}")
                module.load_state_dict(state[name])
        _load_optimizer(path, learner.optimizer, state["optimizer"])
    except _OtherRunError:
        raise
    except (UserError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = first_line(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: not a whole training state ({what}); remove it to start anew") from error
    positions = {int(reader): tuple(position) for reader, position in state.get("positions", {}).items()}
    return Resumed(state["step"], state["seconds"], state["loss"], positions)


def _load_optimizer(path: Path, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take over the optimizer's averages; its settings stay those of the run."""
    groups = [{name: value for name, value in one.items() if name != "params"} for one in optimizer.param_groups]
    optimizer.load_state_dict(dict(saved))
    for group, own in zip(optimizer.param_groups, groups, strict=True):
        group.update(own)
    for number, (parameter, state) in enumerate(optimizer.state.items()):
        held = {f"optimizer {number} {name}": one for name, one in state.items()}
        for name, one in held.items():
            if not isinstance(one, Tensor) or one.shape not in (parameter.shape, ()):
                raise UserError(f"{path}: {name} does not fit its parameter")
        check_finite(held, str(path))


class _OtherRunError(UserError):
    """The state is whole, and of another run."""


class _State(TypedDict):
    settings: str
    data: str
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor] | None
    step: Annotated[int, Range(0, 1 << 40)]
    seconds: Annotated[float, Range(0, 1e12)]
    loss: float
    positions: NotRequired[dict[str, list[int]]]


def _changed(saved: dict[str, object], settings: Any) -> list[str]:
    """A setting that the file does not know is younger than the file, which was made as its default says."""
    was: dict[str, object] = {**dataclasses.asdict(type(settings)()), **saved}
    was, wanted = (json.loads(json.dumps(values)) for values in (was, dataclasses.asdict(settings)))
    return [f"{name} was {was[name]!r}" for name in wanted if was[name] != wanted[name]]
