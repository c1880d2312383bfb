"""Image-caption data: the sets in `data/`, and reading WebDataset shards, good and bad ones."""

from mcliplib.data.labelled import Labelled, load_labelled
from mcliplib.data.reader import ReadReport, Skip, read_shards
from mcliplib.data.registry import data_root, get_card, list_datasets, load_samples, shard_paths
from mcliplib.data.sample import Sample, concept_of, decode_image
from mcliplib.data.shards import write_shard

__all__ = [
    "Labelled",
    "ReadReport",
    "Sample",
    "Skip",
    "concept_of",
    "data_root",
    "decode_image",
    "get_card",
    "list_datasets",
    "load_labelled",
    "load_samples",
    "read_shards",
    "shard_paths",
    "write_shard",
]
