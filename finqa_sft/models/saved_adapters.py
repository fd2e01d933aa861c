"""Adapters that a run has saved: which base they are of, and whether they can be loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from finqa_sft.errors import ModelError
from finqa_sft.models.bases import BaseKind, ResolvedBase, read_json

_NAME = re.compile(r"[A-Za-z]\w*")


def require_name(name: str) -> None:
    """Refuse what PEFT cannot call an adapter: it becomes part of the names of modules.

    Raises:
        ModelError: The name is not letters, digits and underscores, or a module container has a
            method of that name.
    """
    from torch.nn import ModuleDict

    if not _NAME.fullmatch(name) or name in dir(ModuleDict):
        raise ModelError(
            f"{name!r} cannot be an adapter's name; take letters, digits and underscores, as in "
            "'finqa'"
        )


def saved_config(folder: Path, *, base: ResolvedBase) -> dict[str, Any]:
    """The config of a saved adapter, which is one of a base.

    Args:
        folder: As a run, or `save_pretrained`, wrote it.
        base: What the adapter is to stand on.

    Raises:
        ModelError: The folder holds no LoRA adapter with its weights, or one of another base.
    """
    file = folder / "adapter_config.json"
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder; name the one that a run saved its adapter in, such as "
            "runs/NAME/adapter"
        )
    if not file.is_file() and (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds a whole model and no adapter; set model.factory to full, with which "
            "it was trained, or name it in model.base to ask it as it is"
        )
    if not file.is_file():
        raise ModelError(
            f"{folder} holds no adapter_config.json; name the folder that a run saved its adapter "
            "in, such as runs/NAME/adapter"
        )
    config = dict(read_json(file))
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{file} is not of a LoRA adapter (peft_type {config.get('peft_type')!r}); load it "
            "with peft itself"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"{folder} has no adapter_model.safetensors; weights in other formats are not read, as "
            "pickled files can run code: save the adapter again"
        )
    its_base = str(config.get("base_model_name_or_path"))
    if not _same_base(its_base, base):
        raise ModelError(
            f"adapter {folder} was trained on {its_base}, and the base here is {base.name}; load "
            "it over its own base, or correct base_model_name_or_path in "
            f"{file} if they are the same"
        )
    return config


def _same_base(written: str, base: ResolvedBase) -> bool:
    """Whether what an adapter's config names is a base; it may have been moved since."""
    location = base.location()
    if base.kind is BaseKind.HUB or written == location:
        return written == location
    try:
        return Path(written).samefile(location)
    except OSError:
        # It is gone, or lies where this user may not look.
        return Path(written).name == Path(location).name
