"""Ctrl-C, which a terminal sends to every process of a command, and which Python code can lose; and SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

_SECONDS = 0.2  # between two looks at what became of an interrupt
_running = 0  # contexts in this process


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """
    Within the context Ctrl-C is one `KeyboardInterrupt`, in this process, which ends the context.

    Where it is lost, because other code catches everything or because it comes while an object is finalized or while a function
    runs that is registered for a fork, it comes again; another error after it is taken for its consequence. Processes that are
    forked, such as a data loader's workers, ignore it and are ended by this one.
    """
    global _running
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled by another thread
        return
    watch, hook, before = _Watch(), sys.unraisablehook, signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell has started the command with Ctrl-C ignored
        signal.signal(signal.SIGINT, watch.interrupt)
    sys.unraisablehook, _running = _without_interrupts(hook, watch), _running + 1
    try:
        yield
    except KeyboardInterrupt as error:
        traceback.clear_frames(error.__traceback__)  # what it left half made is finalized here, where the hook is
        raise
    except Exception as error:
        if watch.is_interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        if _running:  # not in a process that was forked meanwhile
            _running -= 1
            watch.end()
            sys.unraisablehook = hook
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def before_termination(action: Callable[[], object]) -> Iterator[None]:
    """
    Within the context SIGTERM, as schedulers and `docker stop` send it, calls `action` before it ends the process as ever. In
    another thread than the main one, and where SIGTERM has another handler than the default one, nothing is changed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number, frame):
        try:
            action()
        finally:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Watch(threading.Thread):
    """Interrupts the main thread again where it neither handles an interrupt nor has ended."""

    def __init__(self):
        super().__init__(daemon=True)
        self.is_interrupted, self._ended = False, threading.Event()

    def interrupt(self, number, frame):
        if not self.is_interrupted:
            self.is_interrupted = True
            self.start()
        raise KeyboardInterrupt

    def run(self):
        main = threading.main_thread().ident
        while not self._ended.wait(_SECONDS):
            if not _is_handled(sys._current_exceptions().get(main)):
                if hasattr(signal, "pthread_kill"):  # which wakes it, too
                    signal.pthread_kill(main, signal.SIGINT)
                else:
                    signal.raise_signal(signal.SIGINT)

    def end(self):
        self._ended.set()
        if self.is_interrupted:
            self.join()


def _is_handled(found):
    """Whether an interrupt is among the exceptions that a thread handles, in a `finally` for example."""
    error = found[1] if isinstance(found, tuple) else found  # Python 3.11 gives the type and the traceback, too
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _without_interrupts(hook, watch):
    """A hook that leaves out lost interrupts, and errors after one."""
    return lambda lost: None if watch.is_interrupted or issubclass(lost.exc_type, KeyboardInterrupt) else hook(lost)


def _ignore_in_child():
    global _running
    if _running:
        _running = 0
        with contextlib.suppress(ValueError):  # forked by another thread than the main one
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ignore_in_child)
