"""The state that a run resumes from: one file, replaced as a whole."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import NamedTuple

import torch

from mcliplib.checkpoints.formats import config_to_json
from mcliplib.errors import UserError, first_line
from mcliplib.files import replacing
from mcliplib.model import MobileCLIP
from mcliplib.train.settings import TrainSettings

STATE_FILE = "last.pt"


class Learner(NamedTuple):
    """The parts that a run changes."""

    model: MobileCLIP
    optimizer: torch.optim.Optimizer
    average: MobileCLIP | None  # of the weights, where the settings want one

    @property
    def result(self) -> MobileCLIP:
        """The model that is evaluated and saved: the average where there is one."""
        return self.model if self.average is None else self.average


class Resumed(NamedTuple):
    """Where a run stands."""

    step: int  # steps taken
    seconds: float  # time spent on them
    loss: float  # of the last one


def save_state(directory: Path, settings: TrainSettings, digest: str, learner: Learner, at: Resumed) -> None:
    """Write weights, optimizer and position; a crash of the program or the machine leaves the earlier file.

    Raises:
        WriteError: the file cannot be written; the earlier one is still there.
    """
    state = {
        "settings": json.dumps(dataclasses.asdict(settings)),
        "config": config_to_json(learner.model.config),
        "data": digest,
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "average": None if learner.average is None else learner.average.state_dict(),
        "step": at.step,
        "seconds": at.seconds,
        "loss": at.loss,
    }
    with replacing(directory / STATE_FILE) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(directory: Path, settings: TrainSettings, digest: str, learner: Learner) -> Resumed:
    """Continue from the folder's state.

    Raises:
        UserError: the file is broken, or belongs to a run with other settings (which ones is said) or other data.
    """
    path = directory / STATE_FILE
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        saved = json.loads(state["settings"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a whole training state ({first_line(error)}); remove it to start anew") from error
    _check_settings(path, saved, settings)
    if state["data"] != digest:
        raise UserError(f"{path}: belongs to a run on other data under the same names; choose another --output")
    learner.model.load_state_dict(state["model"])
    learner.optimizer.load_state_dict(state["optimizer"])
    if learner.average is not None:
        learner.average.load_state_dict(state["average"])
    return Resumed(state["step"], state["seconds"], state["loss"])


def _check_settings(path: Path, saved: dict[str, object], settings: TrainSettings) -> None:
    """A setting that the file does not know is younger than the file, which was made as its default says."""
    was = {**dataclasses.asdict(TrainSettings()), **saved}
    was, wanted = (json.loads(json.dumps(values)) for values in (was, dataclasses.asdict(settings)))
    changed = [f"{name} was {was[name]!r}" for name in wanted if was[name] != wanted[name]]
    if changed:
        raise UserError(f"{path}: belongs to a run with other settings ({'; '.join(changed)}); choose another --output")
