"""Fixtures of several test files."""

import datasets
import faults
import pytest
from helpers import tiny_model, tiny_system


@pytest.fixture(autouse=True, scope="session")
def no_progress_bars():
    """Of `datasets`, between the lines that tests read."""
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Runs commands under faults, see [`faults.Commands`]."""
    with faults.Commands(tmp_path_factory.mktemp("commands")) as running:
        yield running


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of a tiny model and its processor. A test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("model")
    config, processor = tiny_system()
    tiny_model(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
