"""Data sets that the library knows, and the reading of their files."""

from .dataset_entry import (
    DatasetEntry,
    DatasetFile,
    DatasetSource,
    available_datasets,
    get_dataset,
    register_dataset,
)

__all__ = ["DatasetEntry", "DatasetFile", "DatasetSource", "available_datasets", "get_dataset", "register_dataset"]
