"""The common parts of all command lines of this library."""

import errno
import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from ..utils.interrupts import one_interrupt

TRACEBACK = "--traceback"
CLOSED_PIPE = 1
WRONG_INPUT = 2  # as argparse ends on wrong arguments
INTERRUPTED = 130  # as shells report Ctrl-C


def command(main: Callable[..., int]) -> Callable[..., int]:
    """
    Decorator of a command's `main(argv=None, ...)`, which returns the exit status. What a user did wrong, or the machine
    lacks, is one line on stderr and the status 2; with `--traceback` in `argv`, which the command's parser declares, the
    traceback comes before it. Ctrl-C is one line and 130; a closed pipe behind stdout is 1 without a word. To print to a stdout
    that was closed before the start is an error.
    """

    @functools.wraps(main)
    def run(argv=None, *arguments, **options):
        hold_closed_streams()
        try:
            with one_interrupt():
                status = main(argv, *arguments, **options)
            sys.stdout.flush()  # here, where what is wrong with it is still caught
            return status
        except BrokenPipeError:  # the reader of stdout, such as `head`, has seen enough
            _gives_up_output()
            return CLOSED_PIPE
        except (OSError, ValueError, ImportError) as error:
            if TRACEBACK in (sys.argv[1:] if argv is None else argv):
                traceback.print_exc()
            where = ["standard output:"] if _gives_up_output() and getattr(error, "filename", None) is None else []
            _print_line(" ".join(["error:", *where, *str(error).split()]))
            return WRONG_INPUT
        except KeyboardInterrupt:
            _print_line("interrupted")
            return INTERRUPTED

    return run


def _gives_up_output():
    """Returns whether stdout takes nothing any more, on a full disk for example. What is left to print leads nowhere from then
    on: Python would fail again when it closes stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


class _ClosedStream(io.TextIOBase):
    """Takes nothing. Its `buffer` is itself."""

    @property
    def buffer(self):
        return self

    def write(self, _):
        raise OSError(errno.EBADF, "it is closed; expected an open one, or a file to write to", "standard output")

    def fileno(self):
        return 1


def hold_closed_streams() -> None:
    """
    Standard streams that were closed before the start: their descriptors lead nowhere from now on, where the next file that is
    opened would get one and what libraries print there. `sys.stdin` stays None, what is written to stderr is lost, and to write
    to stdout is an `OSError`.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = _ClosedStream()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def discard_closed_output() -> None:
    """Lets a command run to its end whose stdout was closed before the start: what it prints is lost."""
    if isinstance(sys.stdout, _ClosedStream):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _print_line(text):
    """Prints a line of its own on stderr, also where a progress bar is."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def refuse_overwriting(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """
    Refuses to write over what is read, and to write two outputs into one file, by whatever path or link.

    Args:
        outputs (`Iterable[str | Path]`): files and folders that the command writes.
        inputs (`Iterable[str | Path]`): files and folders that it reads. What does not exist is skipped.

    Raises:
        ValueError: names the output that is an input or another output.
    """
    outputs = list(outputs)
    written = {}
    for path in outputs:
        other = written.setdefault(os.path.realpath(path), path)
        if other is not path and (_is_stored(path) or not os.path.exists(path)):
            raise ValueError(f"{path} would be written twice; expected outputs of their own")
    read = {_inode(path): path for path in inputs if _is_stored(path)}
    for path in outputs:
        if _is_stored(path) and _inode(path) in read:
            raise ValueError(f"{path} would be written over the input {read[_inode(path)]}; expected another output")


def _is_stored(path):
    return Path(path).is_file() or Path(path).is_dir()  # /dev/null may be both input and output


def _inode(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino
