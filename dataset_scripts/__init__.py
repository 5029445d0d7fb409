"""Data sets: their entries, which importing this registers, their loading, description and publication."""

from . import biored, cdr, chemdisgene, docred, dwie, gda  # noqa: F401
