"""Search in a folder of pictures: an index of their vectors, asked with texts, pictures, or weighted sums of both."""

from mcliplib.search.index import Hit, Index, Report, Text
from mcliplib.search.models import search_model

__all__ = ["Hit", "Index", "Report", "Text", "search_model"]
