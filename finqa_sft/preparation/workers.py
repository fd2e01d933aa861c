"""Encoding pages in processes of their own, which end with this one, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING

from finqa_sft.errors import HardwareError
from finqa_sft.preparation.pages import Page, PageEncoder, Row

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

_ENDING = (signal.SIGINT, signal.SIGTERM)


class WorkerTraceback(Exception):
    """Where an error was raised in a process of its own; it is the cause of that error here."""

    def __str__(self) -> str:
        return f"in a process that encodes\n{self.args[0]}"


class Workers:
    """Encodes pages in several processes; one a call of `rows`, for use in a `with` statement.

    The processes are forked, so that a formatter from a plugin's file need not be importable in
    them; where that is not safe, as on macOS, this process does their work.

    Attributes:
        error: What a page could not be encoded for, once that happened.
    """

    def __init__(
        self,
        encoder: PageEncoder,
        pages: Sequence[Page],
        *,
        processes: int,
        done: Callable[[int], None],
    ) -> None:
        """Take the work.

        Args:
            encoder: Encodes the questions of a document.
            pages: The questions of each document.
            processes: At most so many are started, and none for a single one.
            done: Is told how many further questions are encoded.
        """
        self.error: Exception | None = None
        self._encoder = encoder
        self._pages = pages
        self._count = min(processes, len(pages)) if sys.platform == "linux" else 1
        self._done = done
        self._running: dict[Connection, ForkProcess] = {}

    def __enter__(self) -> Workers:
        """Start nothing yet: where the rows are in the cache, nobody asks for them."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes that still run."""
        for process in self._running.values():
            process.terminate()
        for pipe, process in self._running.items():
            process.join()
            pipe.close()

    def rows(self) -> Iterator[Row]:
        """What became of each question; of several processes, in no certain order.

        Raises:
            HardwareError: The system ended a process.
        """
        try:
            for rows in self._several() if self._count > 1 else map(self._alone, self._pages):
                self._done(len(rows))
                yield from rows
        except Exception as error:
            self.error = error
            raise

    def _alone(self, page: Page) -> list[Row]:
        return list(self._encoder.page(page))

    def _several(self) -> Iterator[list[Row]]:
        for first in range(self._count):
            self._start(self._pages[first :: self._count])
        unfinished = set(self._running)
        while unfinished:
            for pipe in wait(list(unfinished)):
                assert isinstance(pipe, Connection)
                try:
                    said = pipe.recv()
                except EOFError:
                    self._running[pipe].join()
                    raise HardwareError(
                        "a process that encodes questions was ended by the system (exit code "
                        f"{self._running[pipe].exitcode}); if memory was short, lower "
                        "data.processes"
                    ) from None
                match said:
                    case None:
                        unfinished.remove(pipe)
                    case (Exception() as error, str(where)):
                        raise error from WorkerTraceback(where)
                    case _:
                        yield said

    def _start(self, pages: Sequence[Page]) -> None:
        """Start a process for some pages."""
        ours, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        inherited = [ours, *self._running]
        process = context.Process(
            target=_work, args=(theirs, inherited, self._encoder, pages), daemon=True
        )
        # Until it has handlers of its own, a signal must not find it with this process's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            process.start()
            self._running[ours] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # The next process would keep it open, and the end of this one would go unseen.
            theirs.close()


def _work(
    pipe: Connection,
    inherited: Sequence[Connection],
    encoder: PageEncoder,
    pages: Sequence[Page],
) -> None:
    """Send the rows of each page, then None; or the error that ended it, with its traceback."""
    # Held open here, they would hide from other processes that nobody reads what they send.
    for other in inherited:
        other.close()
    # Ctrl-C in a terminal reaches all processes; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    # Tokenizers of forked processes would warn that they use one thread each.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        for page in pages:
            said = _encoded(encoder, page)
            pipe.send(said)
            if isinstance(said, tuple):
                return
        pipe.send(None)
    except BrokenPipeError:
        # Nobody waits for the rows any more.
        return


def _encoded(encoder: PageEncoder, page: Page) -> list[Row] | tuple[Exception, str]:
    """The rows of a page; or the error that it raises, with its traceback."""
    try:
        return list(encoder.page(page))
    except Exception as error:
        return _portable(error), traceback.format_exc()


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    # Anything can go wrong in the pickling of a stranger's exception.
    except Exception:
        said = RuntimeError(f"{type(error).__name__}: {error}")
        for note in vars(error).get("__notes__", ()):
            said.add_note(note)
        return said
    return error
