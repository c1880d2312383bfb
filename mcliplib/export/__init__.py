"""Models for other runtimes: a folder with artefacts, tokenizer, preprocessing and card, verified before it appears."""

from mcliplib.export.exporting import FORMATS, PRECISIONS, export

__all__ = ["FORMATS", "PRECISIONS", "export"]
