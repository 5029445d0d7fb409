"""Ctrl-C, which a terminal sends to every process of a command."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_SECONDS = 0.05  # until a lost interrupt is sent again
_running = 0  # contexts in this process


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """
    Within the context Ctrl-C is one `KeyboardInterrupt`, in this process. Processes that are forked, such as a data loader's
    workers, ignore it and are ended by this one. Where Python would lose it, because it comes while an object is finalized or
    while a function runs that is registered for a fork, it is sent again.
    """
    global _running
    before, again = sys.unraisablehook, []

    def hook(unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
        elif _running:
            again.append(threading.Timer(_SECONDS, _interrupt))
            again[-1].daemon = True
            again[-1].start()

    sys.unraisablehook, _running = hook, _running + 1
    try:
        yield
    finally:
        sys.unraisablehook, _running = before, _running - 1
        for timer in again:
            timer.cancel()


def _interrupt():
    if hasattr(signal, "pthread_kill"):  # which wakes the main thread
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _ignore_in_child():
    global _running
    if _running:
        _running = 0
        with contextlib.suppress(ValueError):  # forked by another thread than the main one
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ignore_in_child)
