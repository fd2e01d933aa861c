"""The first moment of training: the model is as it will train, no file of another run is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Beginning(TrainerCallback):
    """Tries the collator on the model as it will train; only then an earlier run's files may go."""

    def __init__(
        self,
        check: Callable[[PreTrainedModel], dict[str, Any]],
        begin: Callable[[dict[str, Any]], None],
    ) -> None:
        """Take what is to be done.

        Args:
            check: Refuses the model, or says what was measured.
            begin: Takes that, and makes room for this run.
        """
        self._check = check
        self._begin = begin

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do both."""
        self._begin(self._check(kwargs["model"]))
