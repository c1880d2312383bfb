"""Training: settings, batches, the loop, and what it writes."""

from mcliplib.train.settings import TrainSettings, load_settings
from mcliplib.train.trainer import TrainResult, train

__all__ = ["TrainResult", "TrainSettings", "load_settings", "train"]
