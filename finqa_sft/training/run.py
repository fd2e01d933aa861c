"""One training run, on one screen: a resolved recipe in, a saved adapter or model out."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from rich.console import Console

from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.plugins.manager import Plugins
from finqa_sft.ranks import is_main, world_size
from finqa_sft.recipe import Recipe
from finqa_sft.training.checkpoints import refuse_other_run
from finqa_sft.training.failures import Parts, explained
from finqa_sft.training.folder import RunFolder
from finqa_sft.training.launch import require_active, require_launch
from finqa_sft.training.telling import told_to_other_machines


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: The output folder.
        steps: Optimizer steps done.
        interrupted: The signal that ended it early, if one did.
    """

    folder: Path
    steps: int
    interrupted: Signals | None = None


def train(recipe: Recipe, *, plugins: Plugins, console: Console | None = None) -> Outcome:
    """Train what a recipe describes.

    Raises:
        FinqaSftError: Anything that a user can mend. Before the first step nothing of an earlier
            run is touched; later, its checkpoints remain.
    """
    console = console or Console(quiet=not is_main(), soft_wrap=True)
    folder = RunFolder(recipe.output.dir)
    parts = Parts()
    with folder.taken(), parts.blamed(), ExitStack() as before_all_meet:
        before_all_meet.enter_context(told_to_other_machines())
        checkpoint = folder.starting_point(
            resume=recipe.trainer.get("resume_from_checkpoint"),
            overwrite=recipe.output.overwrite,
            say=console.print,
        )
        require_launch(recipe.trainer)
        # Seconds of imports begin here, after everything that can be refused without them.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        quiet_libraries()
        factory = parts.build(recipe.model)
        factory.check()

        from transformers import PrinterCallback
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        from finqa_sft.encoding import Encoder
        from finqa_sft.evaluation.answering import answerer
        from finqa_sft.evaluation.evaluate import built_metrics
        from finqa_sft.models.measured import MemoryWatch
        from finqa_sft.preparation import prepare_data
        from finqa_sft.preparation.batches import Batches, Layout
        from finqa_sft.preparation.sharing import prepared_once
        from finqa_sft.recipe.recorded import recipe_record
        from finqa_sft.training import announce
        from finqa_sft.training.agreement import require_agreement, require_common, resolved
        from finqa_sft.training.arguments import (
            require_batches,
            require_possible,
            sft_fields,
            trainer_section_blamed,
            try_arguments,
        )
        from finqa_sft.training.beginning import Beginning
        from finqa_sft.training.callbacks import (
            CheckpointManifests,
            FiniteValues,
            MetricsFile,
            ProgressReport,
        )
        from finqa_sft.training.distributed import Distributed
        from finqa_sft.training.final import evaluate_result
        from finqa_sft.training.finished import finish, is_finished
        from finqa_sft.training.interruption import Interruption
        from finqa_sft.training.memory import predicted
        from finqa_sft.training.record import RunRecord, identity
        from finqa_sft.training.scores import AnswerScores

        announce.recipe(console, recipe)
        tokenizer = factory.load_tokenizer()
        encoder = Encoder(tokenizer)
        formatter = parts.build(recipe.formatter)
        data = prepared_once(
            lambda: prepare_data(recipe, encoder=encoder, formatter=formatter, say=console.print)
        )
        announce.data(console, data, encoder=encoder)

        # Before the model: under ZeRO-3, DeepSpeed takes part in its loading from here on.
        evaluates = bool(data.held_out.questions)
        with trainer_section_blamed():
            args = SFTConfig(**sft_fields(recipe, factory=factory, evaluates=evaluates))
            require_possible(args)
            require_active(args, factory)
        same = identity(recipe, data, args)
        if checkpoint:
            refuse_other_run(checkpoint, same)
        facts = resolved(recipe, plugins, data, factory, args)
        before_all_meet.close()
        if world_size() > 1:
            require_agreement(args, facts | {"checkpoint": str(checkpoint and checkpoint.name)})
            require_common(folder.path, args)
        collator = parts.build(recipe.collator, tokenizer)
        train_dataset = collator.arrange(data.training.rows)
        eval_dataset = collator.arrange(data.held_out.rows) if evaluates else None
        arranged = [dataset for dataset in (train_dataset, eval_dataset) if dataset is not None]
        require_batches(args, training=len(train_dataset), held_out=len(arranged[-1]))
        batches = Batches.of(args, rows=len(train_dataset), processes=world_size())
        layout = Layout.of(data.training, train_dataset, batches)
        announce.batches(console, batches)
        announce.layout(
            console,
            layout,
            is_arranged=train_dataset.column_names != data.training.rows.column_names,
        )

        if checkpoint and is_finished(checkpoint, steps=batches.steps):
            # No model is needed to copy one.
            changed = {
                "recipe": recipe_record(recipe),
                "batches": batches.record(),
                "trainer_arguments": args.to_dict(),  # type: ignore[no-untyped-call]
            }
            takes_best = args.load_best_model_at_end
            result = finish(folder, checkpoint, changed=changed, takes_best=takes_best)
            is_scored = recipe.evaluation.after and bool(data.gold)
            announce.finished(
                console, folder=folder, result=result, steps=batches.steps, is_scored=is_scored
            )
            return Outcome(folder.path, batches.steps)

        for dataset in arranged:
            collator.check_config(factory.load_config(), dataset)
        model = factory.load_model(args)
        announce.model(console, factory.describe())
        if attention := recipe.collator.record.attn_implementation:
            model.set_attn_implementation(attention)
        progress = ProgressReport(console)
        interruption = Interruption(console, grace_period=recipe.output.grace_period)
        callbacks = [parts.build(callback, folder.path) for callback in recipe.callbacks]
        metrics = built_metrics(recipe.metrics)
        questions = announce.askable(console, data.gold, args)
        scores = AnswerScores(
            questions,
            metrics,
            recipe.evaluation,
            before=folder.evaluation.before,
            is_stopping=lambda: interruption.pending,
            say=console.print,
        )

        def begin(measured: dict[str, Any]) -> None:
            announce.checked(console, measured)
            if folder.holds(checkpoint):
                folder.remove_unfinished()
            else:
                folder.clear()
            record.begin(trainer, measured)

        beginning = Beginning(lambda model: collator.check_model(model, train_dataset), begin)
        watchers = [
            beginning,
            CheckpointManifests(),
            scores,
            interruption,
            progress,
            FiniteValues(),
            MetricsFile(folder.metrics),
        ]
        with trainer_section_blamed():
            trainer = SFTTrainer(
                model=model,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                data_collator=collator,
                processing_class=tokenizer,
                callbacks=[*watchers, *callbacks],
            )
            try_arguments(trainer, steps=batches.steps)
        trainer.remove_callback(PrinterCallback)
        announce.distributed(console, Distributed.of(trainer))
        factory.settle(trainer)
        longest_answer = data.training.summary["longest_answer"]
        asked = answerer(
            recipe, model, encoder=encoder, formatter=formatter, longest_answer=longest_answer
        )
        scores.watch(trainer, asked)

        result = folder.result(model)
        watch = MemoryWatch(model)
        record = RunRecord(
            recipe,
            plugins,
            factory,
            data=data,
            identity=same,
            batches=batches,
            layout=layout,
            folder=folder,
            result=result,
        )
        with (
            explained(folder, collator=recipe.collator, model=model),
            record.kept(trainer),
            progress.shown(),
            interruption.watching(),
            watch.watching(),
        ):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            with folder.replaced(result) as partial:
                trainer.save_model(str(partial))
            record.interrupted = interruption.received
            record.memory = watch.record(predicted(recipe, factory, trainer, train_dataset))
        stopped = interruption.received is not None
        if recipe.evaluation.after and questions and not stopped:
            evaluate_result(
                recipe,
                questions,
                metrics,
                asked,
                watcher=scores,
                folder=folder,
                result=result,
                record=record,
                console=console,
            )
        announce.memory(console, record.memory)
        announce.result(
            console,
            trainer.state,
            recipe,
            folder=folder,
            result=result,
            stopped=stopped,
            is_best=args.load_best_model_at_end,
        )
        return Outcome(folder.path, trainer.state.global_step, interruption.received)
