"""Whether a run was started as it asks to be: found before a model loads, with what to do instead.

A launcher says what it did in the environment; what accelerate made of that stands in `SFTConfig`.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finqa_sft.errors import HardwareError, RecipeError
from finqa_sft.models.base import ModelFactory
from finqa_sft.models.devices import is_fsdp, launches_fsdp
from finqa_sft.models.full import FullFactory
from finqa_sft.ranks import is_launched, world_size
from finqa_sft.recipe.deepspeed import flaws, read_config
from finqa_sft.recipe.fsdp import Fsdp, optimizer_problem

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

COPIES: Mapping[str, str] = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}
"""Where programs that start several processes say how many; they tell none of them its rank."""

INSTALL = "pip install deepspeed"


def require_launch(trainer: Mapping[str, Any]) -> None:
    """Refuse what the environment tells before anything is imported.

    Args:
        trainer: The recipe's `trainer` section.

    Raises:
        RecipeError: DeepSpeed is asked for twice, beside FSDP, without a launcher, or not there;
            FSDP is asked for in a way that trains nothing or saves nothing.
        HardwareError: Several processes were asked for, and they would not train together.
    """
    _require_one_run()
    own = trainer.get("deepspeed")
    if own and launches_fsdp():
        raise RecipeError(
            "trainer.deepspeed is set, and the configuration of `accelerate launch` asks for FSDP; "
            "leave one of them out"
        )
    _require_fsdp(trainer)
    launcher = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
    if not own and not launcher:
        return
    if own and not is_launched():
        raise RecipeError(
            "trainer.deepspeed is set, and DeepSpeed needs a launcher: start with "
            "`torchrun --nproc_per_node N -m finqa_sft RECIPE`, N being the number of GPUs"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(f"DeepSpeed is asked for and not installed: {INSTALL}")
    if launcher:
        _require_one_config(own)


def _require_one_run() -> None:
    """Refuse processes that do not know of each other, and one in place of several."""
    if is_launched() or world_size() > 1:
        return
    for name, starter in COPIES.items():
        copies = int(os.environ.get(name, "1"))
        if copies > 1:
            raise HardwareError(
                f"{starter} has started {copies} processes, and each would be a run of its own; "
                f"let {starter} start one `accelerate launch` or `torchrun` on each machine, which "
                "starts the others"
            )
    # accelerate's simple launcher (1.15, `prepare_simple_launcher_cmd_env`): it starts one process,
    # and names a port only where it was asked for several.
    on_cpu = os.environ.get("ACCELERATE_USE_CPU")
    if on_cpu is not None and "MASTER_PORT" in os.environ:
        why = (
            "with --cpu it starts no more"
            if on_cpu.lower() == "true"
            else "its configuration has distributed_type NO, or this machine has less than two GPUs"
        )
        raise HardwareError(
            f"accelerate launch was asked for several processes and has started one: {why}; start "
            "with `torchrun --nproc_per_node N -m finqa_sft RECIPE`, or for one process with "
            "`--num_processes 1`, and without MASTER_PORT in the environment"
        )


def _require_fsdp(trainer: Mapping[str, Any]) -> None:
    """Refuse what FSDP would end a run with, where the launcher asks for it."""
    if trainer.get("fsdp"):
        if is_launched():
            # As a launcher says it, so that the base may be larger than the device.
            os.environ["ACCELERATE_USE_FSDP"] = "true"
        return
    fsdp = Fsdp.of_launcher()
    if fsdp is None:
        return
    for problem in fsdp.problems():
        raise RecipeError(f"the configuration of `accelerate launch` {problem} in it")
    if fault := optimizer_problem(str(trainer.get("optim"))):
        raise RecipeError(f"trainer.optim {fault}")


def _require_one_config(own: object) -> None:
    """Refuse a DeepSpeed configuration of the launcher that is not there, or not the recipe's."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    # accelerate takes the configuration itself in place of a path.
    is_path = file is not None and file.endswith(".json")
    if file and is_path and not Path(file).is_file():
        raise RecipeError(
            f"the configuration of `accelerate launch` names {file} in deepspeed_config_file, and "
            f"{Path.cwd()} holds no such file; write its absolute path there, or start without a "
            "configuration and with trainer.deepspeed=zero3, or another that is shipped"
        )
    if not own:
        return
    mine = own if isinstance(own, dict) else read_config(Path(str(own)))
    if not file or not is_path or read_config(Path(file)) != mine:
        raise RecipeError(
            "trainer.deepspeed and the configuration of `accelerate launch` name different "
            "DeepSpeed configurations; leave one of them out"
        )


def require_active(args: SFTConfig, factory: ModelFactory) -> None:
    """Refuse a run that accelerate would not share out as it was asked to.

    Args:
        args: The trainer's configuration; building it started accelerate.
        factory: Will make the model.

    Raises:
        HardwareError: Fewer processes train together than were started.
        RecipeError: DeepSpeed or FSDP is asked for and not active, or another precision than that
            of the run; DeepSpeed is configured so that the run would fail or lose its model.
    """
    from accelerate.utils import DistributedType

    state: Any = args.distributed_state
    kind, processes = state.distributed_type, state.num_processes
    where = "on the CPU" if args.device.type == "cpu" else f"on {args.device.type}"
    if processes != world_size():
        raise HardwareError(
            f"the launcher has started {world_size()} processes, and accelerate joins {processes} "
            f"{where}, so that each would train alone; leave trainer.use_cpu and trainer.deepspeed "
            "out on a machine without a GPU"
        )
    if args.deepspeed_plugin is not None and kind is not DistributedType.DEEPSPEED:
        raise RecipeError(
            f"DeepSpeed ZeRO-{args.deepspeed_plugin.zero_stage} is asked for and not active: "
            f"accelerate has no DeepSpeed {where} ({kind.value}); run on GPUs without "
            "trainer.use_cpu, or leave DeepSpeed out"
        )
    if is_fsdp(args) and kind in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise RecipeError(
            f"FSDP is asked for and not active: accelerate has no FSDP {where} without a launcher "
            f"that starts a process on each GPU ({kind.value}); start with `accelerate launch "
            "--config_file recipes/accelerate/fsdp_qlora.yaml`, or leave FSDP out"
        )
    if args.deepspeed_plugin is not None:
        _require_config(args, whole=isinstance(factory, FullFactory))
    # What the trainer's own fields say goes before accelerate's, unless they say neither.
    if args.mixed_precision != "no" and not args.bf16 and not args.fp16:
        raise RecipeError(
            f"the configuration of `accelerate launch` has mixed_precision {args.mixed_precision}, "
            "and this run computes in float32; set it to 'no' there, or set model.compute_dtype"
        )


def _require_config(args: SFTConfig, *, whole: bool) -> None:
    """Refuse a DeepSpeed configuration that is no good, wherever it comes from.

    DeepSpeed and the trainer find some of it themselves, when the model has been loaded.
    """
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    plugin: Any = args.deepspeed_plugin
    own: Any = args.hf_deepspeed_config if args.deepspeed else None
    config = copy.deepcopy(plugin.deepspeed_config)
    problems = list(flaws(config, whole=whole))
    if not problems:
        # What is "auto" is filled in.
        filled: Any = own or HfTrainerDeepSpeedConfig(config)  # type: ignore[no-untyped-call]
        if own is None:
            filled.trainer_config_process(args)
        for mismatch in filled.mismatches:
            name, _, other = mismatch.removeprefix("- ds ").partition(" vs hf ")
            problems.append(f'has {name}, and this run {other}; write "auto" there')
        zero = filled.config.get("zero_optimization", {})
        try:
            DeepSpeedZeroConfig(**{name: value for name, value in zero.items() if value != "auto"})
        except ValidationError as error:
            problems += [
                f"has zero_optimization.{'.'.join(map(str, one['loc']))}: {one['msg']}"
                for one in error.errors()
            ]
    if problems:
        where = "trainer.deepspeed" if own else "the configuration of `accelerate launch`"
        raise RecipeError(f"{where} {'; it '.join(problems)}")
