"""What can end a run, and what is said then: who is to blame, what was kept, how to go on."""

from __future__ import annotations

import errno
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finqa_sft.collators.shared_context import SharedContextOptions
from finqa_sft.errors import FinqaSftError, TrainingError
from finqa_sft.models.memory import size
from finqa_sft.plugins.manager import Component
from finqa_sft.plugins.records import CollatorRecord
from finqa_sft.ranks import world_size
from finqa_sft.recipe import Chosen
from finqa_sft.training.checkpoints import checkpoint_size
from finqa_sft.training.folder import RunFolder
from finqa_sft.writing import nearest_existing

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_HARDLY_ANY = 2**20
"""Bytes; torch reports a full disk as a failed write without saying why."""

_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")
"""How torch's allocators say so where the exception's type does not."""


_LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process has exited")
"""How torch's communication says that another process has ended."""


class Parts:
    """The components that a run is made of, and who provides them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._providers: dict[int, tuple[object, Component[Any]]] = {}

    def build(self, chosen: Chosen[Any], *rest: Any) -> Any:
        """Build a component, and remember whose it is.

        Args:
            chosen: What the recipe names.
            rest: What `build` of its record takes after the options.
        """
        part = chosen.build(*rest)
        self._providers[id(part)] = (part, chosen.component)
        return part

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the component in any unexpected exception that one of its methods lets out.

        The trainer calls collator and callbacks from deep inside; which of them it was stands in
        the traceback, as the `self` of a frame.
        """
        try:
            yield
        # A component that exits takes the run with it, and is to be named no less.
        except (Exception, SystemExit) as error:
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            for frame in reversed(frames):
                found = self._providers.get(id(frame.f_locals.get("self")))
                if found is not None:
                    with found[1].blamed():
                        raise
            raise


@contextmanager
def explained(
    folder: RunFolder, *, collator: Chosen[CollatorRecord], model: PreTrainedModel | PeftModel
) -> Iterator[None]:
    """Say what was kept and how to go on where memory, disk or the user end the training.

    Args:
        folder: The run's folder.
        collator: Knows by what a batch is made smaller.
        model: What is trained.

    Raises:
        TrainingError: The disk is full, or the memory of the device.
        KeyboardInterrupt: In place of one without words.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        folder.remove_unfinished()
        said = [*map(str, interruption.args), folder.kept(), folder.way_on()]
        raise type(interruption)("; ".join(said)) from interruption
    except FinqaSftError:
        raise
    except Exception as error:
        free = shutil.disk_usage(nearest_existing(folder.path)).free
        if _is_full_disk(error) or free < _HARDLY_ANY:
            folder.remove_unfinished()
            raise TrainingError(
                f"the disk of {folder.path} is full ({size(free)} left, and a checkpoint takes "
                f"{size(checkpoint_size(folder.path, model))}): {folder.kept()}. Free some space "
                f"and {folder.way_on()}; trainer.save_total_limit keeps fewer checkpoints"
            ) from error
        if world_size() > 1 and any(said in str(error) for said in _LOST):
            raise TrainingError(
                f"another process of this run is gone ({_first_line(error)}), and says why where "
                f"it can: {folder.kept()}; {folder.way_on()}"
            ) from error
        if _is_full_memory(error):
            folder.remove_unfinished()
            raise TrainingError(
                f"memory ran out ({_first_line(error)}): {folder.kept()}. Set "
                f"trainer.gradient_checkpointing and {folder.way_on()}; or start anew with a lower "
                f"formatter.max_length, or with a lower {_size_of_batches(collator)} and as much "
                "more trainer.gradient_accumulation_steps"
            ) from error
        raise


def _size_of_batches(collator: Chosen[CollatorRecord]) -> str:
    """The key of a recipe that makes batches smaller."""
    if isinstance(collator.options, SharedContextOptions):
        return "collator.tokens_per_batch"
    return "trainer.per_device_train_batch_size"


def _is_full_disk(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left" in str(error)


def _is_full_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in _NO_MEMORY
    )


def _first_line(error: BaseException) -> str:
    """What a library says of itself, without its advice."""
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
