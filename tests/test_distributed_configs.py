"""Configurations of launchers and DeepSpeed that are shipped, and what contradicts a recipe."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_input import Shell
from conftest import ROOT
from processes import FSDP_LAUNCH, needs_deepspeed

from finqa_sft.errors import FinqaSftError, RecipeError
from finqa_sft.models.devices import launches_fsdp
from finqa_sft.models.options import LoraOptions, QLoRAOptions
from finqa_sft.models.sharded import unshareable
from finqa_sft.recipe.deepspeed import read_config, stage_of
from finqa_sft.recipe.shipped import shipped_configs
from finqa_sft.training.distributed import Distributed
from finqa_sft.training.launch import require_launch

pytest_plugins = ["bad_input"]

ACCELERATE = shipped_configs("accelerate")
DEEPSPEED = shipped_configs("deepspeed")
YAML = {name: path for name, path in ACCELERATE.items() if path.suffix == ".yaml"}

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_STEP_NUM_TASKS", "PMI_SIZE")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a launcher of the tests themselves has set."""
    for name in [*LAUNCHED, *(name for name in os.environ if name.startswith("ACCELERATE_"))]:
        monkeypatch.delenv(name, raising=False)


def test_these_configurations_are_shipped() -> None:
    assert list(ACCELERATE) == [
        "ddp", "fsdp_qlora", "multi_node.sbatch", "multi_node", "single_gpu",
        "zero1", "zero2", "zero3", "zero3_offload",
    ]  # fmt: skip
    assert list(DEEPSPEED) == ["zero1", "zero2", "zero3", "zero3_offload"]
    # The project's wheel takes the whole folder; `test_wheel` compares the files.
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'recipes = "finqa_sft/_recipes"' in project


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """What `accelerate launch` sets for the processes that it starts."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    def launch(*words: str) -> dict[str, str]:
        parsed = launch_command_parser().parse_args([*words, "-m", "finqa_sft", "my.yaml"])
        args, defaults, of_config = _validate_launch_command(parsed)
        args.main_process_port = 0
        if not args.use_deepspeed:
            return dict(prepare_multi_gpu_env(args))
        fields = [*defaults.deepspeed_config, *(["mixed_precision"] if of_config else [])]
        args.deepspeed_fields_from_accelerate_config = ",".join(fields)
        return dict(prepare_deepspeed_cmd_env(args)[1])

    monkeypatch.chdir(ROOT)
    return launch


@pytest.mark.parametrize("name", YAML)
def test_accelerate_takes_each_configuration(
    name: str, launched: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(YAML[name]))
    assert isinstance(config, ClusterConfig)
    # The recipe says what is computed in: a launcher that does, too, would go before float32.
    assert config.mixed_precision is None
    found = launched("--config_file", str(YAML[name]))
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"
    if not name.startswith("zero"):
        assert "ACCELERATE_USE_DEEPSPEED" not in found
        return
    from accelerate.utils import DeepSpeedPlugin

    for key, value in found.items():
        if key.startswith("ACCELERATE_"):
            monkeypatch.setenv(key, value)
    # Refuses fields that stand in both files.
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == stage_of(read_config(DEEPSPEED[name])) == int(name[4])
    assert plugin.zero3_init_flag is name.startswith("zero3")
    host = "cpu" if name.endswith("offload") else "none"
    assert (plugin.offload_optimizer_device, plugin.offload_param_device) == (host, host)


def test_what_accelerate_makes_of_fsdp(launched: Callable[..., dict[str, str]]) -> None:
    found = launched("--config_file", str(YAML["fsdp_qlora"]))
    assert {name: found[name] for name in FSDP_LAUNCH} == FSDP_LAUNCH


def test_two_machines_are_sixteen_processes(launched: Callable[..., dict[str, str]]) -> None:
    lines = YAML["multi_node"].read_text("utf-8").splitlines()
    for rank, line in enumerate(lines[:2]):
        words = line.removeprefix("# accelerate launch ").partition(" -m finqa_sft")[0].split()
        assert words[words.index("--machine_rank") + 1] == str(rank)
        launched(*words)
    config = yaml.safe_load(YAML["multi_node"].read_text("utf-8"))
    assert (config["num_machines"], config["num_processes"]) == (2, 16)


AUTO = ("bf16", "fp16", "gradient_accumulation_steps", "gradient_clipping", "train_batch_size")


def autos(node: Any) -> list[str]:
    return [
        key
        for key, value in node.items()
        for key in ([key] if value == "auto" else autos(value) if isinstance(value, dict) else [])
    ]


@needs_deepspeed
@pytest.mark.deepspeed
@pytest.mark.parametrize("name", DEEPSPEED)
@pytest.mark.parametrize(
    "fields",
    [
        {"bf16": False},
        {"bf16": True, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 5},
        {"bf16": False, "max_grad_norm": 0.3, "learning_rate": 1e-5, "weight_decay": 0.1},
    ],
)
def test_the_trainer_finds_no_mismatch_in_a_deepspeed_configuration(
    name: str, fields: dict[str, Any], tmp_path: Path, tiny: Path
) -> None:
    from transformers import AutoConfig
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
    from trl import SFTConfig

    class Model:
        config = AutoConfig.from_pretrained(tiny)

    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **fields)
    config = HfTrainerDeepSpeedConfig(str(DEEPSPEED[name]))
    before = autos(config.config)
    assert before.count("enabled") == 2
    assert set(AUTO[2:]) <= set(before)
    config.trainer_config_process(args)
    config.trainer_config_finalize(args, Model(), 10)
    assert config.mismatches == []
    assert autos(config.config) == []
    assert config.config["bf16"]["enabled"] is fields["bf16"]
    assert config.config["gradient_clipping"] == args.max_grad_norm
    accumulated = config.config["gradient_accumulation_steps"]
    assert accumulated == args.gradient_accumulation_steps


def test_a_configuration_is_found_by_its_name_and_a_file_of_that_name_comes_first(
    shell: Shell,
) -> None:
    from finqa_sft.plugins.manager import Plugins
    from finqa_sft.recipe import load_recipe

    def named(text: str) -> Any:
        words = [f"trainer.deepspeed={text}"]
        plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
        return load_recipe("r.yaml", words, plugins).trainer["deepspeed"]

    assert named("zero3") == str(DEEPSPEED["zero3"])
    assert named("zero3_offload") == str(DEEPSPEED["zero3_offload"])
    (shell.folder / "zero3").mkdir()
    assert named("zero3") == str(DEEPSPEED["zero3"])
    (shell.folder / "zero3").rmdir()
    shell.write("zero3", '{"zero_optimization": {"stage": 3}, "train_batch_size": "auto"}')
    assert named("zero3") == "zero3"


CONTRADICTIONS = {
    "trainer.deepspeed=zero33": "trainer.deepspeed  no file and no shipped configuration is named "
    "'zero33'; did you mean 'zero3'?",
    "trainer.deepspeed=fast": "trainer.deepspeed  no file and no shipped configuration is named "
    "'fast'; there are zero1, zero2, zero3, zero3_offload",
    "trainer.deepspeed=fast.json": "trainer.deepspeed  no such file: fast.json",
    "trainer.deepspeed=list.json": "trainer.deepspeed  list.json is no DeepSpeed configuration, "
    "which is a JSON object",
    "trainer.deepspeed={zero_optimization: {stage: 2}, gradient_accumulation_steps: 7, "
    "train_batch_size: auto}": "trainer.deepspeed  sets gradient_accumulation_steps to 7, and "
    'trainer.gradient_accumulation_steps is 1; write "auto" in the DeepSpeed configuration',
    "trainer.deepspeed={zero_optimization: {}, scheduler: {type: WarmupLR}, train_batch_size: "
    "auto}": "trainer.deepspeed  has a section scheduler, which would replace "
    "trainer.lr_scheduler_type silently; take it out and set trainer.lr_scheduler_type",
    "trainer.deepspeed={zero_optimization: {stage: 2}}": "trainer.deepspeed  says no size of "
    'batches; add "train_micro_batch_size_per_gpu": "auto"',
    "trainer.deepspeed={zero_optimization: {stage: '3'}}": "trainer.deepspeed  has no "
    "zero_optimization with a stage of 0, 1, 2 or 3",
    "trainer.deepspeed={zero_optimization: {offload_param: cpu}, train_batch_size: auto}": "trainer"
    '.deepspeed  has \'cpu\' in zero_optimization.offload_param; write {"device": "cpu"}, or '
    "leave it out",
    "trainer.deepspeed={zero_optimization: {reduce_bucket_size: big}, train_batch_size: auto}": (
        "trainer.deepspeed  has 'big' in zero_optimization.reduce_bucket_size; write a number or "
        '"auto"'
    ),
    "trainer.deepspeed={zero_optimization: 3}": "trainer.deepspeed  has no zero_optimization with "
    "a stage of 0, 1, 2 or 3",
    "model.factory=full trainer.deepspeed={zero_optimization: {stage: 3}, train_batch_size: "
    "auto}": "trainer.deepspeed  would save parts of the trained model and no model; set "
    "zero_optimization.stage3_gather_16bit_weights_on_model_save to true, or "
    "zero3_save_16bit_model where accelerate's configuration names no file",
    "trainer.fsdp=true trainer.fsdp_config={version: two}": "trainer.fsdp_config  has version two "
    "of FSDP, which fails when a checkpoint is saved; set fsdp_version to 2",
    "trainer.deepspeed=zero2 trainer.fsdp=true": "trainer.fsdp  shares the model out, as "
    "trainer.deepspeed does; leave one of them out",
    "trainer.deepspeed=zero3 model.lora.dora=true": "model.lora.dora  does not work under "
    "DeepSpeed ZeRO-3: it computes with whole base weights, which ZeRO-3 shares out; use ZeRO-2, "
    "or set model.lora.dora to false",
    "trainer.deepspeed=zero3 model.lora.init=eva": "model.lora.init  eva does not work under "
    "DeepSpeed ZeRO-3: it runs the base before ZeRO-3 has taken it over; use ZeRO-2, or init "
    "gaussian",
    "trainer.deepspeed=zero3 model.bits=8": "model.bits  8 does not work under FSDP and DeepSpeed "
    "ZeRO-3, which shard weights of floating-point types only; set model.bits to 4, or use ZeRO-2",
    "trainer.fsdp=true model.storage_dtype=uint8": "model.storage_dtype  uint8 leaves the whole "
    "4-bit base in each process under FSDP, which shards floating-point types only; leave it out: "
    "auto stores it as the compute dtype there",
    "trainer.fsdp=true trainer.fsdp_config={version: 1}": "trainer.fsdp_config  has version 1 of "
    "FSDP, which fails when a checkpoint is saved; set fsdp_version to 2",
    "trainer.fsdp=true trainer.fsdp_config={fsdp_state_dict_type: SHARDED_STATE_DICT}": "trainer."
    "fsdp_config  has state_dict_type SHARDED_STATE_DICT, with which no adapter and no model is "
    "saved; set fsdp_state_dict_type to FULL_STATE_DICT",
    "trainer.fsdp=true trainer.fsdp_config=list.json": "trainer.fsdp_config  list.json is no FSDP "
    "configuration, which is a JSON object",
    "trainer.fsdp=true trainer.optim=paged_adamw_8bit": "trainer.optim  paged_adamw_8bit does not "
    "work under FSDP: bitsandbytes' optimizers cannot step tensors that processes share; set it to "
    "adamw_torch_fused",
    "trainer.deepspeed=zero1 model.compute_dtype=bfloat16 model.storage_dtype=float32": "model."
    "storage_dtype  float32 does not work under DeepSpeed, which casts weights to bfloat16, the "
    "compute dtype, and packed 4-bit weights are no numbers; leave it out",
    "trainer.model_init_kwargs={device_map: auto}": "trainer.model_init_kwargs  set the options of "
    "the model section instead",
}
"""Overrides of a recipe, and what `check` says of them."""


@pytest.mark.parametrize(("overrides", "said"), CONTRADICTIONS.items())
def test_check_finds_what_contradicts(shell: Shell, overrides: str, said: str) -> None:
    shell.write("list.json", "[]")
    words = re.findall(r"\S+=(?:\{.*\}|\S+)", overrides)
    assert shell.refused("check", "r.yaml", *words) == f"r.yaml: 1 problem\n  override  {said}"


def test_what_goes_together_is_taken(shell: Shell) -> None:
    for overrides in (
        ["trainer.deepspeed=zero3"],
        ["trainer.deepspeed=zero2", "model.lora.dora=true"],
        ["trainer.deepspeed=zero3", "model.storage_dtype=uint8"],
        ["trainer.fsdp=true", "model.lora.dora=true"],
        [
            "trainer.deepspeed={zero_optimization: {}, gradient_accumulation_steps: 1, "
            "gradient_clipping: auto, "
            "train_batch_size: auto}"
        ],
        ["model.factory=full", "trainer.deepspeed=zero3"],
    ):
        assert shell("check", "r.yaml", *overrides).status == 0, overrides


def test_a_storage_type_is_held_against_the_compute_type_once_that_is_known() -> None:
    options = QLoRAOptions(storage_dtype="float32")
    assert unshareable(options, "fsdp", compute=None) is None
    assert unshareable(options, "fsdp", compute="float32") is None
    assert unshareable(options, "none", compute="bfloat16") is None
    found = unshareable(options, "fsdp", compute="bfloat16")
    assert found is not None
    assert found[0] == "model.storage_dtype"
    assert unshareable(QLoRAOptions(lora=LoraOptions(dora=True)), "fsdp", compute=None) is None


def refusal(trainer: dict[str, Any], **environment: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(FinqaSftError) as caught:
            require_launch(trainer)
    return str(caught.value)


ALONE = "accelerate launch was asked for several processes and has started one: "
START = (
    "; start with `torchrun --nproc_per_node N -m finqa_sft RECIPE`, or for one process with "
    "`--num_processes 1`, and without MASTER_PORT in the environment"
)


def test_one_process_in_place_of_several_is_refused() -> None:
    port = {"MASTER_PORT": "29500", "MASTER_ADDR": "127.0.0.1"}
    on_cpu = refusal({}, ACCELERATE_USE_CPU="True", **port)
    assert on_cpu == f"{ALONE}with --cpu it starts no more{START}"
    assert refusal({}, ACCELERATE_USE_CPU="False", **port) == (
        f"{ALONE}its configuration has distributed_type NO, or this machine has less than two GPUs"
        f"{START}"
    )
    assert refusal({}, SLURM_STEP_NUM_TASKS="8") == (
        "srun has started 8 processes, and each would be a run of its own; let srun start one "
        "`accelerate launch` or `torchrun` on each machine, which starts the others"
    )


def test_a_launcher_that_did_as_it_was_asked_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    require_launch({})
    # `accelerate launch` with one process.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    require_launch({})
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29500")
    # One launcher on each of two machines.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    require_launch({})


def test_what_fsdp_would_end_a_run_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "the configuration of `accelerate launch` has "
    assert refusal({}, ACCELERATE_USE_FSDP="true") == (
        f"{where}version 1 of FSDP, which fails when a checkpoint is saved; set fsdp_version to 2 "
        "in it"
    )
    second = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    # What accelerate takes where nothing is said.
    for more in ({}, {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}):
        assert refusal({}, **second, **more) == (
            f"{where}state_dict_type SHARDED_STATE_DICT, with which no adapter and no model is "
            "saved; set fsdp_state_dict_type to FULL_STATE_DICT in it"
        )
    assert refusal({"optim": "adamw_8bit"}, **FSDP_LAUNCH) == (
        "trainer.optim adamw_8bit does not work under FSDP: bitsandbytes' optimizers cannot step "
        "tensors that processes share; set it to adamw_torch_fused"
    )
    for name, value in FSDP_LAUNCH.items():
        monkeypatch.setenv(name, value)
    require_launch({"optim": "adamw_torch"})
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "1")
    require_launch({})


def test_fsdp_of_a_recipe_is_known_before_the_base_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "")
    require_launch({"fsdp": True})
    assert not launches_fsdp()
    monkeypatch.setenv("LOCAL_RANK", "0")
    require_launch({"fsdp": True})
    assert launches_fsdp()


def test_deepspeed_without_a_launcher_or_without_deepspeed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refusal({"deepspeed": "zero3"}) == (
        "trainer.deepspeed is set, and DeepSpeed needs a launcher: start with `torchrun "
        "--nproc_per_node N -m finqa_sft RECIPE`, N being the number of GPUs"
    )
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "deepspeed" else found(name)
    )
    said = "DeepSpeed is asked for and not installed: pip install deepspeed"
    assert refusal({"deepspeed": "zero3"}, LOCAL_RANK="0") == said
    assert refusal({}, ACCELERATE_USE_DEEPSPEED="true", LOCAL_RANK="0") == said


@needs_deepspeed
def test_a_configuration_of_the_launcher_that_is_not_there_or_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = {"ACCELERATE_USE_DEEPSPEED": "true", "LOCAL_RANK": "0"}
    relative = "recipes/deepspeed/zero3.json"
    assert refusal({}, **launcher, ACCELERATE_DEEPSPEED_CONFIG_FILE=relative) == (
        f"the configuration of `accelerate launch` names {relative} in deepspeed_config_file, and "
        f"{tmp_path} holds no such file; write its absolute path there, or start without a "
        "configuration and with trainer.deepspeed=zero3, or another that is shipped"
    )
    mine = {"deepspeed": str(DEEPSPEED["zero2"])}
    other = str(DEEPSPEED["zero3"])
    assert refusal(mine, **launcher, ACCELERATE_DEEPSPEED_CONFIG_FILE=other) == (
        "trainer.deepspeed and the configuration of `accelerate launch` name different DeepSpeed "
        "configurations; leave one of them out"
    )
    assert refusal(mine, LOCAL_RANK="0", ACCELERATE_USE_FSDP="true") == (
        "trainer.deepspeed is set, and the configuration of `accelerate launch` asks for FSDP; "
        "leave one of them out"
    )
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", mine["deepspeed"])
    require_launch(mine)
    require_launch({})


@pytest.mark.multiprocess
@pytest.mark.slow
def test_accelerate_that_starts_one_process_for_two_is_refused_before_anything_is_read(
    shell: Shell,
) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launch, "-m", "finqa_sft", "r.yaml"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode != 0
    assert f"{ALONE}with --cpu it starts no more{START}" in done.stderr
    assert not (shell.folder / "run").exists()


@needs_deepspeed
@pytest.mark.deepspeed
@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (
            ["trainer.deepspeed=zero2"],
            {},
            "DeepSpeed ZeRO-2 is asked for and not active: accelerate has no DeepSpeed on the CPU "
            "(MULTI_CPU); run on GPUs without trainer.use_cpu, or leave DeepSpeed out\n",
        ),
        (
            ["trainer.use_cpu=false", "trainer.bf16=false"],
            {},
            "the launcher has started 2 processes, and accelerate joins 1 on the CPU, so that each "
            "would train alone; leave trainer.use_cpu and trainer.deepspeed out on a machine "
            "without a GPU\n",
        ),
        (
            [],
            FSDP_LAUNCH,
            "FSDP is asked for and not active: accelerate has no FSDP on the CPU without a "
            "launcher that starts a process on each GPU (MULTI_CPU); start with `accelerate launch "
            "--config_file recipes/accelerate/fsdp_qlora.yaml`, or leave FSDP out\n",
        ),
        (
            [],
            {"ACCELERATE_MIXED_PRECISION": "bf16"},
            "the configuration of `accelerate launch` has mixed_precision bf16, and this run "
            "computes in float32; set it to 'no' there, or set model.compute_dtype\n",
        ),
    ],
)
def test_what_is_asked_for_and_not_active_is_refused_before_the_model_loads(
    shell: Shell, words: list[str], environment: dict[str, str], said: str
) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "finqa_sft", "r.yaml", *words],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )
    assert done.returncode != 0
    # The processes share a terminal, so another line may follow in the same one.
    assert said.rstrip("\n") in done.stderr
    assert "memory estimate" not in done.stdout


def test_what_is_active_is_said_in_a_line() -> None:
    def line(**changes: Any) -> str:
        facts: dict[str, Any] = {
            "type": "DEEPSPEED",
            "kind": "deepspeed",
            "processes": 16,
            "machines": 2,
            "stage": 3,
            "shared": ("optimizer states", "gradients", "weights"),
            "offloaded": (),
            "mixed_precision": "bf16",
        }
        return str(Distributed(**{**facts, **changes}))

    assert line() == (
        "DeepSpeed ZeRO-3; 16 processes on 2 machines; shared out: optimizer states, gradients, "
        "weights; mixed precision bf16"
    )
    offloaded = line(machines=1, processes=1, shared=(), offloaded=("optimizer states", "weights"))
    assert offloaded == (
        "DeepSpeed ZeRO-3; 1 process; each holds everything; in the host's memory: optimizer "
        "states, weights; mixed precision bf16"
    )
    plain = {"stage": None, "shared": (), "machines": 1, "mixed_precision": "no"}
    assert line(kind="ddp", processes=2, **plain) == (
        "DDP; 2 processes; each holds everything; no mixed precision"
    )
    assert line(kind="none", processes=1, **plain) == "one process; no mixed precision"


def test_a_configuration_is_copied_with_what_it_names(shell: Shell) -> None:
    assert shell("recipes", "copy", "accelerate/zero3", "mine.yaml").status == 0
    copied = yaml.safe_load(Path("mine.yaml").read_text("utf-8"))
    file = Path(copied["deepspeed_config"]["deepspeed_config_file"])
    assert file == shell.folder / "zero3.json"
    assert json.loads(file.read_text()) == read_config(DEEPSPEED["zero3"])
    # Nothing is written where one of the two is there already.
    assert shell.refused("recipes", "copy", "accelerate/zero3", "other.yaml") == (
        f"{file} exists already; name another file"
    )
    (shell.folder / "a # b").mkdir()
    assert shell("recipes", "copy", "accelerate/zero3", "a # b").status == 0
    odd = yaml.safe_load(Path("a # b/zero3.yaml").read_text("utf-8"))["deepspeed_config"]
    assert odd["deepspeed_config_file"] == str(shell.folder / "a # b" / "zero3.json")
    assert shell("recipes", "copy", "accelerate/multi_node.sbatch").status == 0
    assert shell("recipes", "copy", "deepspeed/zero1", "one.json").status == 0
    assert shell("check", "r.yaml", "trainer.deepspeed=one.json").status == 0
    assert shell.refused("recipes", "copy", "deepspeed/zero4") == (
        "no configuration 'zero4' of deepspeed is shipped; did you mean 'zero3'?"
    )


def test_an_unreadable_configuration_says_so(tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text("{")
    with pytest.raises(RecipeError, match=r"zero\.json cannot be read as a DeepSpeed configur"):
        read_config(tmp_path / "zero.json")


def test_the_page_has_what_was_measured_and_a_command_for_every_configuration() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    try:
        from sharding import CONFIGS, summary, table
    finally:
        sys.path.pop(0)
    page = (ROOT / "docs" / "how-to" / "many-gpus.md").read_text("utf-8")
    record = json.loads((ROOT / "docs" / "results" / "sharding_cpu.json").read_text("utf-8"))
    results = record["results"]
    assert [row for row in page.splitlines() if re.match(r"\| `(qlora|lora|full)` ", row)] == table(
        results
    )
    # Further down is what was predicted.
    choices = page.partition("## What a process holds")[0].splitlines()
    chosen = {row.split("`")[1]: row for row in choices if row.startswith("| `")}
    assert set(YAML) <= chosen.keys()
    for config in CONFIGS:
        row = chosen["fsdp_qlora" if config == "fsdp" else config]
        assert f"| {summary(results, config)} |" in row
    for name in YAML:
        assert "accelerate launch" in chosen[name]
    plans = json.loads((ROOT / "docs" / "results" / "memory_predicted.json").read_text("utf-8"))
    ways = {"single_gpu": "one process", "fsdp_qlora": "fsdp"}
    for name in YAML.keys() - {"multi_node"}:
        totals = [
            f"{plan['total'][ways.get(name, name)] / 2**30:.1f}"
            for plan in plans["plans"]
            if plan["factory"] == "qlora"
        ]
        assert f"| {', '.join(totals)} |" in chosen[name]


def test_under_fsdp_a_base_that_the_gpu_cannot_hold_is_loaded_into_the_hosts_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trl import SFTConfig

    from finqa_sft.models.devices import Device
    from finqa_sft.models.qlora import QLoRAFactory

    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")

    def place(free: int) -> str:
        factory = QLoRAFactory(QLoRAOptions(base="tiny"))
        factory.device = Device("cuda", 1, "a GPU", 2**34, free, bfloat16=True)
        if "ACCELERATE_USE_FSDP" in os.environ:
            # Without FSDP a base that does not fit is refused here.
            monkeypatch.setenv("LOCAL_RANK", "1")
            factory.check()
        return factory._loading_place(args)

    assert place(2**10) == "cuda:1"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert place(2**10) == "cpu"
    assert place(2**33) == "cuda:1"
    factory = QLoRAFactory(QLoRAOptions(base="tiny"))
    factory.device = Device("cpu", None, "CPU", 2**34, 2**34, bfloat16=False)
    held = sum(factory.held.values())
    # While it is quantised, the largest weight is there unpacked, too.
    assert place(held + 2**16) == "cpu"
