"""Fixtures of several test files."""

import faults
import pytest


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Runs commands under faults, see [`faults.Commands`]."""
    with faults.Commands(tmp_path_factory.mktemp("commands")) as running:
        yield running
