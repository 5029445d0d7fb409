"""What every command line of this library has in common."""

import functools
import os
import sys
from collections.abc import Callable

CLOSED_PIPE = 1
WRONG_INPUT = 2  # as argparse ends on wrong arguments
INTERRUPTED = 130  # as shells report Ctrl-C


def command(main: Callable[..., int]) -> Callable[..., int]:
    """
    Decorator of a command's `main(argv=None, prog=None)`, which returns the exit status: what a user did wrong, or the machine
    lacks, is one line on stderr and the status 2 instead of a traceback; Ctrl-C is one line and 130; a closed pipe behind stdout
    is 1 without a word.
    """

    @functools.wraps(main)
    def run(*arguments, **options):
        try:
            status = main(*arguments, **options)
            sys.stdout.flush()  # here, where what is wrong with it is still caught
            return status
        except BrokenPipeError:  # whoever read stdout, such as `head`, has seen enough
            # Otherwise Python would fail again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except (OSError, ValueError, ImportError) as error:
            print("error:", *str(error).split(), file=sys.stderr)
            return WRONG_INPUT
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    return run
