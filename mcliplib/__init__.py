"""MobileCLIP to learn, run and extend: encoders, reparameterization, data, training, evaluation.

    import mcliplib
    model = mcliplib.create_model("mobileclip_s0")
    tokenizer, preprocess = mcliplib.get_tokenizer(model), mcliplib.get_preprocess(model)
    fast = mcliplib.optimize_for_cpu(mcliplib.reparameterize(model))

Names are imported when they are first used (PEP 562), so that `mcliplib doctor` starts on a machine where the rest
does not import.
"""

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from mcliplib._torchvision_compat import ensure_torchvision
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplib import data, evaluate, losses
    from mcliplib.checkpoints import load_checkpoint, load_model, save_checkpoint
    from mcliplib.factory import create_model, get_preprocess, get_tokenizer
    from mcliplib.layers.cpu import optimize_for_cpu
    from mcliplib.model import MobileCLIP, ModelConfig
    from mcliplib.presets import list_models
    from mcliplib.reparam import reparameterize
    from mcliplib.tokenizer import Tokenizer, restrict_vocab

__version__ = "0.1.0"

__all__ = [
    "MobileCLIP",
    "ModelConfig",
    "Tokenizer",
    "UserError",
    "create_model",
    "data",
    "evaluate",
    "get_preprocess",
    "get_tokenizer",
    "list_models",
    "load_checkpoint",
    "load_model",
    "losses",
    "optimize_for_cpu",
    "reparameterize",
    "restrict_vocab",
    "save_checkpoint",
]

_SUBMODULES = ("data", "evaluate", "export", "latency", "losses", "reinforce", "results", "search", "train", "viz")
_HOMES = {
    "checkpoints": ("load_checkpoint", "load_model", "save_checkpoint"),
    "factory": ("create_model", "get_preprocess", "get_tokenizer"),
    "layers.cpu": ("optimize_for_cpu",),
    "model": ("MobileCLIP", "ModelConfig"),
    "presets": ("list_models",),
    "reparam": ("reparameterize",),
    "tokenizer": ("Tokenizer", "restrict_vocab"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

# Whoever imports mcliplib can import timm and open_clip after it. Where there is no cure, what needs torchvision
# says so when it is used. The command line does it itself, where Ctrl-C is expected: torch takes seconds to import.
_started = sys.orig_argv[1:3]
if _started != ["-m", "mcliplib"] and not (_started and os.path.basename(_started[0]) == "mcliplib"):
    with contextlib.suppress(UserError):
        ensure_torchvision()


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"mcliplib.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"mcliplib.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'mcliplib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
