"""Models for other runtimes: a folder with artefacts, tokenizer, preprocessing and card, verified before it appears."""

from mcliplib.export.exporting import FORMATS, PRECISIONS, export, load_exported
from mcliplib.export.verify import ExportedEncoder

__all__ = ["FORMATS", "PRECISIONS", "ExportedEncoder", "export", "load_exported"]
