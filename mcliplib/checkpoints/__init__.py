"""Weights in and out, in our format and in those of the released code and of open_clip."""

from mcliplib.checkpoints.checkpoint import FORMATS, load_checkpoint, load_model, read_header, save_checkpoint

__all__ = ["FORMATS", "load_checkpoint", "load_model", "read_header", "save_checkpoint"]
