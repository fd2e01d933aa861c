"""The way out: a run as a plain script on TRL and PEFT, and its rows as messages."""

from __future__ import annotations

import json
from pathlib import Path

from finqa_sft.encoding import Encoder
from finqa_sft.errors import ModelError, OutputError, RecipeError
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.quiet import quiet_libraries
from finqa_sft.preparation import Part, prepare_data
from finqa_sft.recipe import Recipe
from finqa_sft.recipe.scored import BEST, is_nll, is_score
from finqa_sft.training.arguments import sft_fields
from finqa_sft.training.templating import render

FILES = ("train.jsonl", "held_out.jsonl")
"""What is written into the folder of rows; the second only where something is held out."""


def eject(recipe: Recipe, *, rows: Path, overwrite: bool = False) -> str:
    """Write a recipe's rows, and give the script that trains on them with the same losses.

    Args:
        recipe: The resolved recipe.
        rows: Folder for `train.jsonl` and `held_out.jsonl`: one object a row, `prompt` and
            `completion` as chat messages.
        overwrite: Whether such files that are there may be replaced.

    Returns:
        The script's text. It imports torch, transformers, datasets, peft and trl alone.

    Raises:
        ModelError: The recipe's model factory comes from a plugin.
        RecipeError: The recipe's collator is another than `padded`, its adapter begins at the
            rows, or stock TRL would not make the same rows with the chat template.
        OutputError: The folder cannot be written, or holds such files already.
    """
    present = [rows / name for name in FILES if (rows / name).exists()]
    if present and not overwrite:
        raise OutputError(
            f"{present[0]} exists already; name another folder with --rows, or replace the rows "
            "in this one with --overwrite"
        )
    quiet_libraries()
    factory = recipe.model.build()
    if not isinstance(factory, BuiltinFactory):
        raise ModelError(
            f"only a recipe with a built-in model factory can be ejected; {recipe.model.name} "
            f"is {recipe.model.component.provider}'s"
        )
    lora = factory.lora_arguments()
    if lora and lora.get("init_lora_weights") == "eva":
        raise RecipeError(
            "a plain script begins before any row is read, and model.lora.init eva begins at the "
            "rows; eject with model.lora.init=gaussian"
        )
    if recipe.collator.name != "padded":
        counts = "per_device_train_batch_size" in recipe.collator.record.sft_args
        raise RecipeError(
            "a plain script has TRL's own padded batches, and the recipe's collator is "
            f"{recipe.collator.name}; eject with 'collator={{name: padded}}'"
            + (" and a trainer.per_device_train_batch_size, in questions" if counts else "")
        )
    best = recipe.trainer.get(BEST)
    if is_score(best) or is_nll(best):
        raise RecipeError(
            f"a plain script asks no questions, so it cannot tell the best checkpoint by {best}; "
            f"eject with trainer.{BEST}=eval_loss"
        )
    factory.check()
    tokenizer = factory.load_tokenizer()
    encoder = Encoder(tokenizer)
    if encoder.empty_thought:
        raise RecipeError(
            f"the chat template's generation prompt ends with {encoder.empty_thought!r}, which it "
            "does not write before an answer: rows have it here, and would not in stock TRL; set "
            "model.chat_template to a template that writes both alike"
        )
    data = prepare_data(recipe, encoder=encoder, formatter=recipe.formatter.build())
    try:
        rows.mkdir(parents=True, exist_ok=True)
        for name, part in zip(FILES, (data.training, data.held_out), strict=True):
            (rows / name).unlink(missing_ok=True)
            if part.questions:
                _write(rows / name, part, encoder)
    except OSError as error:
        raise OutputError(
            f"cannot write {rows}: {error.strerror}; name another folder with --rows"
        ) from error

    evaluates = bool(data.held_out.questions)
    fields = sft_fields(recipe, factory=factory, evaluates=evaluates)
    # Stock TRL encodes the rows by itself, and cuts nothing: they fit.
    fields |= {"max_length": None, "output_dir": str(recipe.output.dir) + "-ejected"}
    for ours in ("dataset_kwargs", "remove_unused_columns", "packing", "padding_free"):
        fields.pop(ours, None)
    quantisation = factory.quantisation_arguments(sharded=False) or {}
    return render(
        "ejected.py.jinja",
        {
            "name": recipe.name,
            "rows": str(rows.resolve()),
            "callbacks": [callback.name for callback in recipe.callbacks],
            "evaluates": evaluates,
            "fields": fields,
            "template": tokenizer.chat_template,
            "factory": {
                "base": factory.base.location(),
                "revision": factory.base.revision or "main",
                "pad_token": tokenizer.pad_token,
                "quantisation": quantisation,
                "lora": lora,
                "dtype": factory.dtype,
                "on_cpu": factory.device.type == "cpu",
                "keeps_packing": factory.device.type == "cpu" and "load_in_4bit" in quantisation,
                "float32_adapters": bool(lora),
            },
        },
    )


def _write(path: Path, part: Part, encoder: Encoder) -> None:
    """One JSON object a row, in training order."""
    with path.open("w", encoding="utf-8") as file:
        for example in part.examples:
            row = {
                "prompt": encoder.messages(example.prompt),
                "completion": [
                    {
                        "role": "assistant",
                        "content": encoder.completion_text(example.completion),
                    }
                ],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
