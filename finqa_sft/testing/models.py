"""The contract of a model factory, as a check: a few steps in a stock `SFTTrainer`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finqa_sft.models.base import ModelFactory
from finqa_sft.recipe.trainer_fields import trainer_fields
from finqa_sft.testing.contract import Checked, Rule

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


class ModelFactoryRule(Rule):
    """What holds for every model factory."""

    CHECKS = (
        "check() passes where the model can be loaded",
        "Give the check a base that is there and small; or check() refuses what would work.",
    )
    SFT_ARGS = (
        "sft_args() are fields of SFTConfig, with values that it takes",
        "Correct the name or the value, or leave the field out.",
    )
    CONFIG = (
        "load_config() gives the config of the model that load_model() gives",
        "Return what AutoConfig.from_pretrained gives for the base; read no weights.",
    )
    TOKENIZER = (
        "the tokenizer can pad and has a chat template",
        "In load_tokenizer(), set pad_token to a token that the vocabulary has, and take a base "
        "with a chat template or set one.",
    )
    LOADS = (
        "load_model() gives a model",
        "See what was raised; what cannot be loaded is for check() to refuse.",
    )
    TRAINABLE = (
        "the model has weights to train",
        "Add adapters in load_model(), or set requires_grad where it is to be trained.",
    )
    SEED = (
        "one seed gives the same weights to train",
        "Call transformers.set_seed(args.seed) just before new weights are drawn.",
    )
    FINITE = (
        "training has a finite loss",
        "Look for weights that are not loaded, and for a dtype that the device overflows in.",
    )
    FROZEN = (
        "training changes no frozen weight",
        "Set requires_grad before load_model() returns, and keep modules from writing to weights.",
    )
    TRAINED = (
        "training changes every weight that is to be trained",
        "Freeze what the loss does not reach, or take the break out of the graph (a detach, a "
        "frozen module under gradient checkpointing).",
    )
    SAVED = (
        "what the trainer saves can be loaded, and has the trained weights",
        "Return a PeftModel or a PreTrainedModel, so that the trainer saves what is needed.",
    )
    ASKED = (
        "load_trained() gives what was saved, with the trained weights and not in training",
        "Load what the trainer wrote to the folder over the same base, and call eval().",
    )
    DESCRIBES = (
        "describe() gives plain values, base and device among them",
        "Return a dict with 'base' and 'device', of text, numbers, lists and dicts only.",
    )


def check_model_factory(factory: ModelFactory, *, output_dir: Path) -> None:
    """Check what `finqa_sft.models.base.ModelFactory` promises, with two steps of training.

    The model is loaded three times and all are kept in memory: take a small base, best one without
    layers that a step can leave out (experts).

    Args:
        factory: The factory, for a base with a chat template.
        output_dir: An empty folder; the trained model is saved below it.

    Raises:
        ContractError: A rule of `ModelFactoryRule` is broken.
    """
    from trl.trainer.sft_config import SFTConfig

    checked = Checked("model factory", type(factory).__name__)
    with checked.unraised(ModelFactoryRule.CHECKS, "check()"):
        factory.check()
    with checked.unraised(ModelFactoryRule.SFT_ARGS, "sft_args()"):
        fields = factory.sft_args()
        unknown = sorted(fields.keys() - trainer_fields().keys())
    checked.require(
        ModelFactoryRule.SFT_ARGS, not unknown, f"SFTConfig has no {', '.join(unknown)}"
    )
    with checked.unraised(ModelFactoryRule.CONFIG, "load_config()"):
        kind = factory.load_config().model_type
    with checked.unraised(ModelFactoryRule.TOKENIZER, "load_tokenizer()"):
        tokenizer = factory.load_tokenizer()
        _check_tokenizer(checked, tokenizer)
    with checked.unraised(ModelFactoryRule.SFT_ARGS, f"SFTConfig with {fields}"):
        args = SFTConfig(**{**_arguments(output_dir), **fields})

    with checked.unraised(ModelFactoryRule.LOADS, "load_model()"):
        model = factory.load_model(args)
        first, frozen = _weights(model, trained=True), _weights(model, trained=False)
    checked.require(
        ModelFactoryRule.CONFIG,
        kind == model.config.model_type,
        f"the config is of model type {kind!r}, the model of {model.config.model_type!r}",
    )
    checked.require(
        ModelFactoryRule.TRAINABLE,
        bool(first),
        f"of {len(frozen)} weights none requires gradients",
    )
    _check_description(checked, factory)
    with checked.unraised(ModelFactoryRule.LOADS, "load_model(), the second time,"):
        other = factory.load_model(args)
    differing = _differing(first, _weights(other, trained=True))
    checked.require(
        ModelFactoryRule.SEED,
        not differing,
        f"loaded twice, it differs in {_some(differing)}",
    )

    trainer = _trained(checked, factory, model, args, tokenizer)
    last = _weights(model, trained=True)
    changed = _differing(frozen, _weights(model, trained=False))
    checked.require(ModelFactoryRule.FROZEN, not changed, f"{_some(changed)} changed")
    still = [name for name in first if name in last and _same(first[name], last[name])]
    checked.require(ModelFactoryRule.TRAINED, not still, f"{_some(still)} did not change")
    with checked.unraised(ModelFactoryRule.SAVED, "saving and loading"):
        trainer.save_model(str(output_dir / "saved"))
        loaded = _loaded(output_dir / "saved", other)
    differing = _differing(last, {name: loaded[name] for name in last if name in loaded})
    checked.require(
        ModelFactoryRule.SAVED, not differing, f"what is loaded again differs in {_some(differing)}"
    )
    with checked.unraised(ModelFactoryRule.ASKED, "load_trained()"):
        asked = factory.load_trained(output_dir / "saved")
        its = {name: value.detach() for name, value in asked.named_parameters()}
    differing = _differing(last, {name: its[name] for name in last if name in its})
    checked.require(
        ModelFactoryRule.ASKED, not differing, f"load_trained() differs in {_some(differing)}"
    )
    checked.require(
        ModelFactoryRule.ASKED, not asked.training, "load_trained() gives a model in training"
    )


def _arguments(output_dir: Path) -> dict[str, Any]:
    """Two quick steps that move every weight, even in bfloat16."""
    return {
        "output_dir": str(output_dir),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "seed": 7,
    }


def _check_tokenizer(checked: Checked, tokenizer: PreTrainedTokenizerBase) -> None:
    lacking = [
        name
        for name, value in (
            ("padding token", tokenizer.pad_token_id),
            ("chat template", tokenizer.chat_template),
        )
        if value is None
    ]
    checked.require(
        ModelFactoryRule.TOKENIZER, not lacking, f"it has no {' and no '.join(lacking)}"
    )


def _trained(
    checked: Checked,
    factory: ModelFactory,
    model: PeftModel | PreTrainedModel,
    args: SFTConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> SFTTrainer:
    """A stock trainer after its two steps."""
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": f"Revenue was $ {n} million. What was it?"}],
            "completion": [{"role": "assistant", "content": str(n)}],
        }
        for n in range(101, 109)
    ]
    with checked.unraised(ModelFactoryRule.FINITE, "training"):
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        factory.settle(trainer)
        loss = trainer.train().training_loss
    checked.require(ModelFactoryRule.FINITE, math.isfinite(loss), f"the loss is {loss}")
    return trainer


def _loaded(folder: Path, fresh: nn.Module) -> dict[str, Tensor]:
    """The weights of a saved model; those of an adapter are put into a fresh model."""
    from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    if isinstance(fresh, PeftModel):
        set_peft_model_state_dict(fresh, load_peft_weights(str(folder), device="cpu"))
        model: nn.Module = fresh
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    return {name: value.detach() for name, value in model.named_parameters()}


def _weights(model: nn.Module, *, trained: bool) -> dict[str, Tensor]:
    """Copies of the weights that do, or do not, require gradients."""
    return {
        name: value.detach().cpu().clone()
        for name, value in model.named_parameters()
        if value.requires_grad == trained
    }


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of weights that only one side has, or that differ."""
    names = sorted(one.keys() | other.keys())
    return [n for n in names if n not in one or n not in other or not _same(one[n], other[n])]


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two weights are equal, in whatever dtype and on whatever device they are."""
    import torch

    pair = (one.float().cpu(), other.float().cpu())
    return one.shape == other.shape and torch.allclose(*pair, rtol=0, atol=0, equal_nan=True)


def _check_description(checked: Checked, factory: ModelFactory) -> None:
    with checked.unraised(ModelFactoryRule.DESCRIBES, "describe()"):
        description = factory.describe()
        missing = sorted({"base", "device"} - description.keys())
    checked.require(
        ModelFactoryRule.DESCRIBES, not missing, f"it has no {' and no '.join(missing)}"
    )
    with checked.unraised(ModelFactoryRule.DESCRIBES, "writing it as JSON"):
        json.dumps(description, allow_nan=False)


def _some(names: list[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
