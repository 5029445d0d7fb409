"""Several processes of `comm-docre predict`, started by `torchrun` or `accelerate launch`: who predicts which batch, and how the
first process gets all results in the order of the input."""

import itertools
import os
import pickle
import time
from collections.abc import Iterator
from typing import NamedTuple

from torch.distributed import Store

from .predict_inputs import Item

# A value of torch's TCPStore must be smaller than 8 MiB.
_PIECE = 4 << 20
# Batches that a process may be ahead of what is written, for each process. They are in memory until then.
_AHEAD = 16
_PAUSE = 0.02  # seconds


class Result(NamedTuple):
    """
    What came of a batch.

    Attributes:
        records (`list[dict]`): of the documents that were predicted.
        rejected (`list[tuple[Item, str]]`): of the others, each with the error.
        read (`int`): how many items of the input precede the end of the batch.
        input_sha256 (`str`): hash of these.
    """

    records: list[dict]
    rejected: list[tuple[Item, str]]
    read: int
    input_sha256: str


class OneProcess:
    """A process without others. Methods as those of [`SeveralProcesses`]."""

    rank, size = 0, 1

    def __init__(self):
        self._results = []

    def start(self, state: dict) -> dict:
        return state

    def numbers(self) -> Iterator[int]:
        return itertools.count()

    def put(self, number: int, result: Result | Exception) -> None:
        self._results.append(result)

    def take(self, until: int | None = None) -> Iterator[Result]:
        while self._results:
            yield _raised(self._results.pop(0))


class SeveralProcesses:
    """
    Processes that share a store. Each takes the next batch of which no other has the number, so that none waits while one has a
    long document. Every process reads the whole input, as the ids of documents depend on those before them.

    Args:
        store (`torch.distributed.Store`): the same for all of them, and empty.
        rank (`int`): of this process, from 0. The first process writes.
        size (`int`): the number of processes.
    """

    def __init__(self, store: Store, rank: int, size: int):
        self.rank, self.size = rank, size
        self._store, self._taken = store, 0

    def start(self, state: dict | None) -> dict:
        """Tells the others how far an earlier run was; they wait for it. A first process that refuses to start speaks for all."""
        if self.rank == 0:
            self._store.set("written", "0")
            self._store.set("start", pickle.dumps(state))
        self._wait_for("start")
        return pickle.loads(self._store.get("start"))

    def numbers(self) -> Iterator[int]:
        """Numbers of the batches that this process is to predict, from 0, rising."""
        while True:
            number = self._store.add("next", 1) - 1
            while self.rank and number - int(self._store.get("written")) > _AHEAD * self.size:
                time.sleep(_PAUSE)
            yield number

    def put(self, number: int, result: Result | Exception) -> None:
        """Hands over what came of a batch, or the error that ended this process."""
        content = pickle.dumps(_portable(result) if isinstance(result, Exception) else result)
        pieces = range(0, len(content), _PIECE)
        for piece, start in enumerate(pieces):
            self._store.set(f"{number}/{piece}", content[start : start + _PIECE])
        self._store.set(f"{number}", str(len(pieces)))

    def take(self, until: int | None = None) -> Iterator[Result]:
        """
        What has been put, in order, each once; for the first process.

        Args:
            until (`int`, *optional*): waits for all results before this number; by default for none.

        Raises:
            Exception: that was put in the place of a result.
        """
        while until is None or self._taken < until:
            key = f"{self._taken}"
            if until is not None:
                self._wait_for(key)
            elif not self._store.check([key]):
                return
            pieces = [f"{key}/{piece}" for piece in range(int(self._store.get(key)))]
            result = pickle.loads(b"".join(map(self._store.get, pieces)))
            for name in (key, *pieces):
                self._store.delete_key(name)
            yield _raised(result)
            self._taken += 1
            self._store.set("written", str(self._taken))

    def _wait_for(self, key):
        # Not by `wait`, which has a time limit: a batch may take hours. Where a launcher ends, the store fails.
        while not self._store.check([key]):
            time.sleep(_PAUSE)


def launched_processes() -> OneProcess | SeveralProcesses:
    """The processes that a launcher started, this one among them."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return OneProcess()
    from torch.distributed import rendezvous

    return SeveralProcesses(*next(rendezvous("env://")))


def own_device(device: str | None) -> str | None:
    """The device of this process: of several GPUs, each process on a machine has one."""
    if device in (None, "cuda") and (local_rank := os.environ.get("LOCAL_RANK")):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{local_rank}"
    return device


def _portable(error):
    """The error, or what it says where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _raised(result):
    if isinstance(result, Exception):
        raise result
    return result
