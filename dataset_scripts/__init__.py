"""Data sets: their entries, which importing this registers, their loading, description and publication."""

from . import docred  # noqa: F401
