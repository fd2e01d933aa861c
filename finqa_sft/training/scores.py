"""Scores while a model trains: answers to held-out questions, and the held-out loss a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.state import GradientState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finqa_sft.documents import Question
from finqa_sft.evaluation.answering import Answerer, sample_of, share
from finqa_sft.evaluation.predictions import Predicted
from finqa_sft.evaluation.processes import gathered
from finqa_sft.evaluation.scoring import score_predictions
from finqa_sft.evaluation.store import write_predictions
from finqa_sft.evaluation.summary import summary
from finqa_sft.metrics.base import Metric
from finqa_sft.models.devices import is_zero3
from finqa_sft.ranks import rank, world_size
from finqa_sft.recipe.schema import EvaluationRules
from finqa_sft.recipe.scored import NLL, is_score

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer


class TokenLoss:
    """The loss of held-out rows a token: the mean over all supervised tokens, in nats.

    The trainer's own `eval_loss` is a mean of the batches' means, which changes with how rows are
    put into batches. This one sums what the model's forward passes give while it evaluates.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Watch a model's forward passes; it must not be wrapped for several processes."""
        self._sums = [0.0, 0.0]
        model.register_forward_hook(self._add, with_kwargs=True)

    def _add(
        self, model: torch.nn.Module, inputs: Any, named: Mapping[str, Any], output: Any
    ) -> None:
        if model.training or output.get("log_probs") is None:
            return
        counted = output["label_mask"] & _own(named, output["label_mask"])
        self._sums[0] -= float(output["log_probs"].double().masked_fill(~counted, 0).sum())
        self._sums[1] += float(counted.sum())

    def take(self, device: torch.device) -> float | None:
        """The loss of all processes since it was taken last; None where nothing was evaluated."""
        sums = torch.tensor(self._sums, dtype=torch.float64, device=device)
        self._sums = [0.0, 0.0]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        total, tokens = sums.tolist()
        return total / tokens if tokens else None


def _own(named: Mapping[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """Which labels belong to rows that no other process has, as booleans.

    accelerate fills the last batches of several processes up with rows from the beginning, to make
    them equally long (1.15, `BatchSamplerShard`); `remainder` counts those that are none.

    Args:
        named: What the model was given.
        labels: `[rows, tokens - 1]`: each place foretells the token after it.
    """
    state = GradientState()
    if world_size() == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return torch.ones_like(labels, dtype=torch.bool)
    rows = torch.arange(len(labels), device=labels.device)[:, None].expand(labels.shape)
    per_process = state.active_dataloader.total_batch_size // world_size()
    # A batch of one row of the data set has one fate, even if that is many trees.
    if len(labels) == 1 and per_process > 1 and "position_ids" in named:
        # Rows that stand one after another, each with positions from 0.
        rows = named["position_ids"].eq(0).cumsum(1)[:, 1:] - 1
    own: int = state.remainder - rank() * per_process
    return rows < own


class AnswerScores(TrainerCallback):
    """Asks held-out questions before and during training, and logs how the answers score.

    What it measures joins the trainer's own metrics, so that the best checkpoint can be told by
    `eval_finqa/execution`; callbacks that look at them must come after this one.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        metrics: Mapping[str, Metric],
        rules: EvaluationRules,
        *,
        before: Path,
        is_stopping: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """Take what is asked and how it is scored.

        Args:
            questions: All held-out questions, as they were read.
            metrics: What answers are scored by, by name.
            rules: When questions are asked, and how many.
            before: The file that what the base answers goes into.
            is_stopping: Whether a signal has come that ends the run.
            say: Is told what was measured before the first step.
        """
        self._questions = sample_of(questions, at_most=rules.questions, seed=rules.seed)
        self._metrics = metrics
        self._rules = rules
        self._before = before
        self._is_stopping = is_stopping
        self._say = say
        self._trainer: SFTTrainer
        self._answerer: Answerer
        self._loss: TokenLoss

    def watch(self, trainer: SFTTrainer, answerer: Answerer) -> None:
        """Take the trainer, which there is only after its callbacks, and what asks its model."""
        self._trainer, self._answerer = trainer, answerer
        self._loss = TokenLoss(cast(torch.nn.Module, trainer.model))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the base, unless the run is a resumed one."""
        if not self._rules.before or not self._questions or state.global_step:
            return
        self._say(f"asking the base {len(self._questions)} held-out questions")
        answered = self._answered()
        if answered is None:
            return
        if state.is_world_process_zero:
            write_predictions(self._before, answered.values())
        self._trainer.log(self._figures(answered))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Add the loss a token and, where it is due, the scores of answers."""
        measured: dict[str, float] = {}
        loss = self._loss.take(args.device)
        if loss is not None:
            measured[NLL] = loss
        done = sum("eval_loss" in entry for entry in state.log_history)
        if self._rules.every and self._questions and done % self._rules.every == 0:
            answered = self._answered(may_stop=not is_score(args.metric_for_best_model))
            measured |= self._figures(answered) if answered is not None else {}
        kwargs["metrics"].update(measured)
        if measured:
            self._trainer.log(measured)

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """Hold all weights in each process where DeepSpeed ZeRO-3 has divided them."""
        if not is_zero3():
            yield
            return
        from trl.models.utils import unwrap_model_for_generation

        trainer = self._trainer
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=cast(
                "dict[str, Any] | None", trainer.args.gradient_checkpointing_kwargs
            ),
        ):
            yield

    def _answered(self, *, may_stop: bool = True) -> dict[str, Predicted] | None:
        """What the model answers now; None where a signal has come."""
        mine: list[Predicted] = []
        stopped = False
        with self.whole_model():
            # Each process its own documents; none waits for another before all are done.
            for predicted in self._answerer.answer(
                share(self._questions, rank=rank(), of=world_size())
            ):
                mine.append(predicted)
                if may_stop and self._is_stopping():
                    stopped = True
                    break
        if any(gathered([stopped])):
            return None
        by_id = {one.id: one for one in gathered(mine)}
        return {question.id: by_id[question.id] for question in self._questions}

    def _figures(self, answered: Mapping[str, Predicted]) -> dict[str, float]:
        """The mean of every figure, by the name that logs give it: `eval_finqa/execution`."""
        evaluation = score_predictions(self._questions, answered, self._metrics)
        return {
            f"eval_{metric}/{figure}": estimate["value"]
            for metric, figures in summary(evaluation)["metrics"].items()
            for figure, estimate in figures.items()
        }
