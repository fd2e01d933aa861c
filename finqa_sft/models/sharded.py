"""What cannot be trained where several processes share a model out, as its options tell."""

from __future__ import annotations

from finqa_sft.models.options import (
    BaseOptions,
    ComputeDtype,
    LoRAFactoryOptions,
    QLoRAOptions,
)

EIGHT_BITS = (
    "8 does not work under FSDP and DeepSpeed ZeRO-3, which shard weights of floating-point types "
    "only; set model.bits to 4, or use ZeRO-2"
)
DORA = (
    "does not work under DeepSpeed ZeRO-3: it computes with whole base weights, which ZeRO-3 "
    "shares out; use ZeRO-2, or set model.lora.dora to false"
)
EVA = (
    "eva does not work under DeepSpeed ZeRO-3: it runs the base before ZeRO-3 has taken it over; "
    "use ZeRO-2, or init gaussian"
)
WHOLE_BYTES = (
    "uint8 leaves the whole 4-bit base in each process under FSDP, which shards floating-point "
    "types only; leave it out: auto stores it as the compute dtype there"
)


def unshareable(
    options: BaseOptions, sharing: str, *, compute: ComputeDtype | None
) -> tuple[str, str] | None:
    """What a model's options ask for that cannot be where the model is shared out.

    Packed 4-bit weights are bytes that stand in elements of the storage dtype. FSDP gathers them in
    the dtype that it computes in (torch 2.13, `MixedPrecisionPolicy.param_dtype`), and DeepSpeed
    casts all parameters of another floating-point type at every stage (0.19, `runtime/engine.py`,
    `_cast_module_mixed_precision`): bytes that are cast so are lost.

    Args:
        options: Those of a model factory.
        sharing: What shares the model out, as `finqa_sft.models.devices.sharded_by` names it.
        compute: The dtype of products; None where it depends on the device.

    Returns:
        The key at fault and what is to be said of it, or None where nothing is wrong.
    """
    whole = sharing in ("fsdp", "zero3")
    if isinstance(options, QLoRAOptions):
        storage = options.storage_dtype
        if options.bits == 8 and whole:
            return "model.bits", EIGHT_BITS
        if storage == "uint8" and sharing == "fsdp":
            return "model.storage_dtype", WHOLE_BYTES
        if sharing != "none" and compute is not None and storage not in ("auto", "uint8", compute):
            name = "FSDP" if sharing == "fsdp" else "DeepSpeed"
            return "model.storage_dtype", (
                f"{storage} does not work under {name}, which casts weights to {compute}, the "
                "compute dtype, and packed 4-bit weights are no numbers; leave it out"
            )
    if isinstance(options, LoRAFactoryOptions) and sharing == "zero3":
        if options.lora.dora:
            return "model.lora.dora", DORA
        if options.lora.init == "eva":
            return "model.lora.init", EVA
    return None
