"""The state that a run resumes from: one file, replaced as a whole."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mcliplib.errors import UserError
from mcliplib.train.settings import TrainSettings

STATE_FILE = "last.pt"


class Resumed(NamedTuple):
    """Where a run stands."""

    step: int  # steps taken
    seconds: float  # time spent on them
    loss: float  # of the last one


def save_state(
    directory: Path,
    settings: TrainSettings,
    digest: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    at: Resumed,
) -> None:
    """Write weights, optimizer and position; a crash leaves the earlier file."""
    state = {
        "settings": json.dumps(dataclasses.asdict(settings)),
        "data": digest,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": at.step,
        "seconds": at.seconds,
        "loss": at.loss,
    }
    temporary = directory / (STATE_FILE + ".tmp")
    torch.save(state, temporary)
    temporary.replace(directory / STATE_FILE)


def load_state(
    directory: Path, settings: TrainSettings, digest: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Resumed:
    """Continue from the folder's state.

    Raises:
        UserError: the file is broken, or belongs to a run with other settings (which ones is said) or other data.
    """
    path = directory / STATE_FILE
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        saved = json.loads(state["settings"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a whole training state ({error}); remove it to start anew") from error
    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    changed = [f"{name} was {saved.get(name)!r}" for name in wanted if saved.get(name) != wanted[name]]
    if changed:
        raise UserError(f"{path}: belongs to a run with other settings ({'; '.join(changed)}); choose another --output")
    if state["data"] != digest:
        raise UserError(f"{path}: belongs to a run on other data under the same names; choose another --output")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Resumed(state["step"], state["seconds"], state["loss"])
