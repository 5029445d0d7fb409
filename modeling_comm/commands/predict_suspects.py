"""Documents with which an earlier run of `comm-docre predict` was killed, as the system does when memory runs out: the next run
knows them, tries them in processes of their own, and sets aside those that kill these, too."""

import glob
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from ..utils.files import read_json, write_json
from ..utils.interrupts import before_termination
from .predict_inputs import Item

Outcome = tuple[list[dict], list[tuple[Item, str]]]

_EXPECTED = "a shorter document, fewer entities, or a machine with more memory"


class Suspects:
    """
    Notes, in `FILE.working.json`, which items are being predicted, and removes the note after them: one that an earlier process
    left names those with which it died. Each of several processes has a note of its own.

    Args:
        path (`str`, *optional*): the run's output. Without one nothing is noted.
        rank (`int`, defaults to 0): which of the processes this is.
        restart (`bool`, defaults to `False`): whether what is noted is ignored.
    """

    def __init__(self, path: str | None, rank: int = 0, restart: bool = False):
        self._note = None if path is None else working_file(path, rank)
        self._notes = [] if path is None else [working_file(path), *working_file(path).parent.glob(_pattern(path))]
        self._places, self._alone = set(), set()
        for note in [] if restart else self._notes:
            if note.exists():
                left = read_json(note)
                self._places |= {*left["items"]}
                self._alone |= {*left["items"]} if left["alone"] else set()

    def forget(self) -> None:
        """Removes the notes of all processes."""
        for note in self._notes:
            note.unlink(missing_ok=True)

    def predict(self, predict: Callable[[Sequence[Item]], Outcome], batch: Sequence[Item]) -> Outcome:
        """
        Predicts a batch; one with which an earlier process died in a process of its own, and if that dies, too, its items one by
        one.

        Args:
            predict (`Callable`): from items to records, and rejected items, each with the error.
            batch (`Sequence[Item]`): the items.

        Returns:
            what `predict` gives. Rejected are also the items that kill a process.
        """
        if not any(item.place in self._places for item in batch):
            with self._noting(batch):
                return predict(batch)
        with self._noting(batch):
            # Together first, as before: the last bits of scores depend on the batch.
            together = _in_child(predict, batch) if _can_fork() else None
        if together is not None:
            return together
        records, rejected = [], []
        for item in batch:
            more, wrong = self._predict_alone(predict, item)
            records += more
            rejected += wrong
        return records, rejected

    def _predict_alone(self, predict, item):
        if item.document is None:
            return predict([item])
        killed = f"found a document that kills the process, expected {_EXPECTED}"
        if item.place in self._alone:
            return [], [(item, killed)]
        if _can_fork():
            with self._noting([item]):
                return _in_child(predict, [item]) or ([], [(item, killed)])
        with self._noting([item], alone=True):
            return predict([item])

    @contextmanager
    def _noting(self, items: Sequence[Item], alone: bool = False) -> Iterator[None]:
        if self._note is None:
            yield
            return
        # The note of one item takes the place of the one that knew others that kill: these stay known.
        known = self._alone if alone else ()
        remove = partial(self._note.unlink, missing_ok=True)
        with before_termination(remove):  # which is no document's doing
            write_json(self._note, {"items": [*known, *(item.place for item in items)], "alone": alone})
            try:
                yield
            finally:  # not after a kill
                remove()


def working_file(path: str, rank: int = 0) -> Path:
    """The note of a process of a run with `--output path`."""
    return Path(f"{path}.working{f'-{rank}' if rank else ''}.json")


def _pattern(path):
    return f"{glob.escape(Path(path).name)}.working-*.json"


def _can_fork():
    return "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()


def _in_child(predict, items):
    """Predicts items in a copy of this process, which may be killed in its place: then the result is None."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sending, predict, items), daemon=True)
    process.start()
    sending.close()
    try:
        outcome = receiving.recv()
    except EOFError:
        outcome = None
    process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _send(sending, predict, items):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the note is for the process that was copied to remove
    torch.set_num_threads(1)  # the threads of the process that was copied are not there
    try:
        sending.send(predict(items))
    except Exception as error:
        try:
            sending.send(error)
        except Exception:  # not every error can be sent
            sending.send(RuntimeError(f"{type(error).__name__}: {error}"))
