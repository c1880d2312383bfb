"""MobileCLIP to learn, run and extend: encoders, reparameterization, data, training, evaluation.

import mcliplib
model = mcliplib.create_model("mobileclip_s0")
tokenizer, preprocess = mcliplib.get_tokenizer(model), mcliplib.get_preprocess(model)
fast = mcliplib.reparameterize(model)
"""

from mcliplib._torchvision_compat import ensure_torchvision

ensure_torchvision()  # before anything imports timm or open_clip, which import torchvision

from mcliplib import data, evaluate, losses  # noqa: E402
from mcliplib.checkpoints import load_checkpoint, load_model, save_checkpoint  # noqa: E402
from mcliplib.errors import UserError  # noqa: E402
from mcliplib.factory import create_model, get_preprocess, get_tokenizer  # noqa: E402
from mcliplib.model import MobileCLIP, ModelConfig  # noqa: E402
from mcliplib.presets import list_models  # noqa: E402
from mcliplib.reparam import reparameterize  # noqa: E402
from mcliplib.tokenizer import Tokenizer, restrict_vocab  # noqa: E402

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
    "reparameterize",
    "restrict_vocab",
    "save_checkpoint",
]
