"""What the library knows of data sets, and how it reads their files."""

from .dataset_entry import (
    DatasetEntry,
    DatasetFile,
    DatasetSource,
    available_datasets,
    get_dataset,
    register_dataset,
)

__all__ = ["DatasetEntry", "DatasetFile", "DatasetSource", "available_datasets", "get_dataset", "register_dataset"]
