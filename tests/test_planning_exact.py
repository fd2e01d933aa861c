"""What is planned of weights, gradients and optimizer is what real tensors take, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import CPU, IDS, arguments
from small_models import small_model
from trl import SFTConfig

from finqa_sft.models.activations import Batch
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.full import FullFactory
from finqa_sft.models.lora import LoRAFactory
from finqa_sft.models.measured import MemoryWatch
from finqa_sft.models.needs import Setting, need
from finqa_sft.models.optimizers import KNOWN, state_bytes
from finqa_sft.models.options import FullOptions, LoRAFactoryOptions, LoraOptions, QLoRAOptions
from finqa_sft.models.qlora import QLoRAFactory
from finqa_sft.models.stored import Part, Stored, nbytes, trained

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "phi3": {"intermediate_size": 136},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 136, "word_embed_proj_dim": 64},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16},
}
"""Tied and untied heads, biases, convolutions as linear layers, norms in float32, widths
that are no multiples of a block, experts in one tensor."""


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind, changes in FAMILIES.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        small_model(kind, **changes).save_pretrained(folders[kind])
    return folders


def factory_of(how: str, base: Path, dtype: str, **lora: Any) -> BuiltinFactory:
    options: dict[str, Any] = {"base": str(base), "compute_dtype": dtype}
    adapter = {"lora": LoraOptions(r=4, **lora)}
    factory: BuiltinFactory
    match how:
        case "full":
            weights = {"base": str(base), "weights_dtype": dtype}
            factory = FullFactory(FullOptions.model_validate(weights))
        case "lora":
            factory = LoRAFactory(LoRAFactoryOptions.model_validate(options | adapter))
        case "8 bits":
            factory = QLoRAFactory(QLoRAOptions.model_validate(options | adapter | {"bits": 8}))
        case _:
            double = {"double_quant": how == "4 bits twice"}
            factory = QLoRAFactory(QLoRAOptions.model_validate(options | adapter | double))
    factory.device = CPU
    return factory


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """What is held once an optimizer has made a step."""
    watch = MemoryWatch(model)
    with watch.watching():
        logits = model(input_ids=IDS).logits
        logits.float().square().mean().backward()
        optimizer.step()
    return watch.held


def planned(factory: BuiltinFactory, optim: str) -> dict[str, int]:
    setting = Setting.of(factory, optim=optim, optim_args=None, checkpointing=False)
    return need(setting, Batch(32, 16, 32)).at_step()


def learning(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


WAYS = ("4 bits twice", "4 bits", "8 bits", "lora", "full")

CASES = [
    pytest.param(
        kind,
        how,
        dtype,
        # Every other one in each run, which has each family, way and dtype.
        marks=[pytest.mark.slow] if (number + way + (dtype == "float32")) % 2 else [],
    )
    for number, kind in enumerate(FAMILIES)
    for way, how in enumerate(WAYS)
    for dtype in ("float32", "bfloat16")
]


@pytest.mark.parametrize(("kind", "how", "dtype"), CASES)
def test_a_step_holds_what_is_planned(
    bases: dict[str, Path], tmp_path: Path, kind: str, how: str, dtype: str
) -> None:
    factory = factory_of(how, bases[kind], dtype)
    args = arguments(tmp_path, factory)
    model: Any = factory.load_model(args)
    if how != "full":
        # As `settle` leaves it in a trainer.
        for parameter in learning(model):
            parameter.data = parameter.data.float()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        found = step(model, torch.optim.AdamW(learning(model), fused=True))
    assert found == planned(factory, "adamw_torch_fused")


@pytest.mark.parametrize(
    "options",
    [
        {"dora": True},
        {"rslora": True, "dropout": 0.1},
        {"init": "mica"},
        {"init": "orthogonal"},
        {"target_modules": ("q_proj", "down_proj")},
        {"modules_to_save": ("embed_tokens", "lm_head")},
        {"modules_to_save": ("norm",)},
    ],
    ids=str,
)
def test_an_adapter_of_any_kind_holds_what_is_planned(
    bases: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    factory = factory_of("lora", bases["llama"], "float32", **options)
    model: Any = factory.load_model(arguments(tmp_path, factory))
    found = step(model, torch.optim.AdamW(learning(model)))
    assert found == planned(factory, "adamw_torch")


SHAPES = ((64, 128), (10,), (33, 7), (4097,), (3, 40, 50))


@pytest.mark.parametrize("optim", KNOWN)
def test_an_optimizer_keeps_what_is_planned(tmp_path: Path, optim: str) -> None:
    from transformers import Trainer

    options = "momentum=0.9" if optim == "rmsprop" else None
    args = SFTConfig(output_dir=str(tmp_path), optim=optim, optim_args=options, bf16=False)
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    optimizer = kind(weights, **settings)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    found = {
        value.data_ptr(): value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    }
    stored = [Stored(Part.ADAPTER, shape, 4, "trained") for shape in SHAPES]
    assert state_bytes(optim, stored, options=options) == sum(found.values())


@pytest.mark.parametrize(("options", "averages"), [(None, 0), ("momentum=0.9", 1)])
def test_momentum_is_an_average_more(options: str | None, averages: int) -> None:
    stored = [Stored(Part.ADAPTER, (10, 10), 4, "trained")]
    assert state_bytes("sgd", stored, options=options) == averages * 400


def test_an_optimizer_that_is_not_known_is_said_to_be(bases: dict[str, Path]) -> None:
    factory = factory_of("lora", bases["llama"], "float32")
    setting = Setting.of(factory, optim="galore_adamw", optim_args=None, checkpointing=False)
    found = need(setting, Batch(32, 16, 32))
    assert found.unknown == ("the state of optimizer galore_adamw",)
    assert found.kept["optimizer state"] == 0
    assert found.kept["gradients"] == nbytes(trained(factory.stored))
