"""Trainer settings that have the right type and cannot work, and what the command line answers."""

from __future__ import annotations

import pytest
from bad_input import ROWS, Shell

pytest_plugins = ["bad_input"]

SECTION = "the trainer refuses the recipe's trainer section: "

VALUES = {
    "learning_rate=-1": "must be more than 0, got -1",
    "max_steps=0": "must be more than 0, or left out for whole epochs; got 0",
    "num_train_epochs=0": "must be more than 0, got 0",
    "per_device_train_batch_size=0": "must be at least 1, got 0",
    "per_device_eval_batch_size=-1": "must be at least 1, got -1",
    "gradient_accumulation_steps=0": "must be at least 1, got 0",
    "eval_accumulation_steps=0": "must be at least 1, got 0",
    "save_steps=0": "must be more than 0, got 0",
    "eval_steps=0": "must be more than 0, got 0",
    "logging_steps=-0.5": "must be more than 0, got -0.5",
    "save_total_limit=0": "must be at least 2, got 0: the trainer removes the checkpoint before "
    "the newest one is known to be whole",
    "save_total_limit=1": "must be at least 2, got 1: the trainer removes the checkpoint before "
    "the newest one is known to be whole",
    "max_grad_norm=-1": "must be at least 0, got -1",
    "weight_decay=-0.1": "must be at least 0, got -0.1",
    "neftune_noise_alpha=-5": "must be at least 0, got -5",
    "label_smoothing_factor=2": "must be at most 1, got 2",
    "seed=-1": "must be at least 0, got -1",
    "seed=4294967296": "must be at most 4294967295, got 4294967296",
    "dataloader_num_workers=-1": "must be at least 0, got -1",
    "log_level=loud": "no 'loud'; there are detail, debug, info, warning, error, critical, passive",
    "metric_for_best_model=eval_f1": "no 'eval_f1'; there are loss, nll, mean_token_accuracy, "
    "entropy",
    "parallelism_config={}": "no recipe can hold it; configure `accelerate launch` instead",
}
"""A value, and what `check` already says of it."""


@pytest.mark.parametrize(("setting", "said"), VALUES.items())
def test_a_value_that_cannot_work(shell: Shell, setting: str, said: str) -> None:
    name = setting.partition("=")[0]
    for verb in ("check", "train"):
        found = shell.refused(verb, "r.yaml", f"trainer.{setting}")
        assert found == f"r.yaml: 1 problem\n  override  trainer.{name}  {said}"


def test_values_that_the_trainer_gives_a_meaning_are_taken(shell: Shell) -> None:
    values = ("max_steps=-1", "metric_for_best_model=eval_loss", "neftune_noise_alpha=null")
    assert shell("check", "r.yaml", *(f"trainer.{value}" for value in values)).status == 0


SETTINGS = {
    "dataloader_persistent_workers=true": "trainer.dataloader_persistent_workers keeps worker "
    "processes, and there are none; set trainer.dataloader_num_workers, or leave it out",
    "eval_strategy=epoch": "trainer.eval_strategy is epoch, and nothing is held out to evaluate "
    "on; set data.split.held_out or evaluation.sources, or leave trainer.eval_strategy out",
    "report_to=swanlab": "trainer.report_to names swanlab, which is not installed; install it, or "
    "leave trainer.report_to out: every run writes metrics.jsonl",
    "use_liger_kernel=true": "trainer.use_liger_kernel is set, and liger-kernel is not installed; "
    "install it, or leave trainer.use_liger_kernel out",
    "activation_offloading=true": "trainer.activation_offloading moves activations from a GPU to "
    "the CPU, and this run is on the CPU; leave it out",
    "push_to_hub=true": "trainer.push_to_hub needs the Hub, which cannot be reached or refuses: ",
    "optim=lomo": f"{SECTION}You need to install `lomo_optim` in order to use LOMO optimizers.",
    "optim_args=x": f"{SECTION}not enough values to unpack",
    "adam_beta1=2": f"{SECTION}Invalid beta parameter at index 0: 2",
    "adam_epsilon=-1": f"{SECTION}Invalid epsilon value: -1",
    "warmup_steps=-1": f"{SECTION}Got warmup_steps = -1",
    "lr_scheduler_type=cosine_with_min_lr": f"{SECTION}One of min_lr or min_lr_rate should be set",
    "lr_scheduler_kwargs={cycles: 2}": f"{SECTION}get_linear_schedule_with_warmup() got an "
    "unexpected keyword argument 'cycles'",
    "gradient_checkpointing_kwargs={deep: 1}": f"{SECTION}Unexpected keyword arguments: deep",
    "load_best_model_at_end=true": f"{SECTION}--load_best_model_at_end requires the save and eval "
    "strategy to match",
    "accelerator_config={nope: 1}": f"{SECTION}AcceleratorConfig.__init__() got an unexpected "
    "keyword argument 'nope'",
    "debug=loud": f"{SECTION}loud is not a valid DebugOption",
    "tf32=true": f"{SECTION}--tf32 requires Ampere or a newer GPU arch",
    "fsdp=full_shard": "FSDP is asked for and not active: accelerate has no FSDP on the CPU "
    "without a launcher that starts a process on each GPU (NO); start with `accelerate launch "
    "--config_file recipes/accelerate/fsdp_qlora.yaml`, or leave FSDP out",
    "resume_from_checkpoint=run/checkpoint-3": "no complete checkpoint in run/checkpoint-3; leave "
    "out trainer.resume_from_checkpoint to start from the beginning",
}
"""A setting, and what a run says of it before anything is written; of a library, so far
as its words matter."""


@pytest.mark.parametrize(("setting", "said"), SETTINGS.items())
def test_a_setting_that_cannot_work(shell: Shell, setting: str, said: str) -> None:
    found = shell.refused("r.yaml", f"trainer.{setting}")
    if said.startswith(SECTION) or said.endswith(": "):
        assert found.startswith(said)
    else:
        assert found == said


@pytest.mark.parametrize(("side", "rows"), [("train", "2 training"), ("eval", "2 held-out")])
def test_rows_that_are_less_than_a_batch_that_is_dropped(
    shell: Shell, side: str, rows: str
) -> None:
    shell.write("own.csv", ROWS + "Tax?,Tax was 1.,1\nDebt?,Debt was 9.,9\n")
    drop = ("trainer.dataloader_drop_last=true", "data.split.held_out=0.5")
    sizes = {"train": 1, "eval": 1} | {side: 3}
    batches = [f"trainer.per_device_{name}_batch_size={size}" for name, size in sizes.items()]
    assert shell.refused("r.yaml", *drop, *batches) == (
        f"{rows} rows are less than one batch of 3, and trainer.dataloader_drop_last drops what is "
        f"less; lower trainer.per_device_{side}_batch_size, or leave trainer.dataloader_drop_last "
        "out"
    )


def test_steps_between_savings_that_no_evaluation_meets(shell: Shell) -> None:
    settings = [
        "load_best_model_at_end=true",
        "save_steps=3",
        "eval_steps=2",
        "eval_strategy=steps",
    ]
    found = shell.refused("r.yaml", "data.split.held_out=0.5", *(f"trainer.{s}" for s in settings))
    assert found.startswith(
        f"{SECTION}--load_best_model_at_end requires the saving steps to be a round multiple of "
        "the evaluation steps"
    )
