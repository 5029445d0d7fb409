"""Progress on stderr: how many are done, their rate, and the time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm
from transformers.utils import logging

_LOG_SECONDS = 30  # between two lines of progress in a file


def progress_bar(total: int | None, done: int = 0, quiet: bool = False, unit: str = "documents") -> tqdm:
    """
    A bar on stderr; where that is no terminal, a line every half minute.

    Args:
        total (`int`, *optional*): number of documents, if it is known.
        done (`int`, defaults to 0): those that an earlier run has done.
        quiet (`bool`, defaults to `False`): whether to show nothing.
        unit (`str`, defaults to `"documents"`): what is counted, in the plural.
    """
    how = {"total": total, "initial": done, "unit": f" {unit}", "disable": quiet}
    if not sys.stderr.isatty():
        how |= {"file": _Lines(sys.stderr), "ascii": True, "mininterval": _LOG_SECONDS, "delay": _LOG_SECONDS}
    return tqdm(**how)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of Transformers."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Lines:
    """A stream in which each state of a bar is a line of its own."""

    def __init__(self, stream: TextIO):
        self.stream, self.encoding = stream, getattr(stream, "encoding", None)

    def write(self, text):
        if text := text.strip():
            self.stream.write(f"{text}\n")

    def flush(self):
        self.stream.flush()
