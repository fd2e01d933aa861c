"""What the factories with adapters share: new adapters on a frozen base, and several over one base.

One base serves many uses: `load_model` gives it a first adapter, `add_adapter` further ones that
know nothing of each other, and `load_adapters` puts saved ones over one copy of the base.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finqa_sft.errors import ModelError
from finqa_sft.models.activations import Trained
from finqa_sft.models.devices import is_zero3
from finqa_sft.models.factory import BuiltinFactory
from finqa_sft.models.first_weights import initialise_from_rows, make_orthogonal
from finqa_sft.models.memory import MemoryEstimate, short_names
from finqa_sft.models.options import ComputeDtype, LoRAFactoryOptions
from finqa_sft.models.saved_adapters import require_name, saved_config
from finqa_sft.models.sharded import DORA, EVA
from finqa_sft.models.stored import Part, Stored, adapter, buffers, nbytes, trained
from finqa_sft.wording import one_line

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


_ONLY_THE_FIRST_IS_TIED = (
    "trains an embedding whose weights the output head shares, and PEFT keeps them shared in the "
    "first adapter of a model alone; make it the first, give it a base of its own, or leave "
    "model.lora.modules_to_save out"
)
"""Seen in PEFT 0.21: for a second adapter, the head goes on with the base's weights."""


class AdapterFactory(BuiltinFactory):
    """Builds a frozen base with LoRA, rsLoRA or DoRA adapters.

    Attributes:
        options: What was asked for.
    """

    options: LoRAFactoryOptions

    def __init__(self, options: LoRAFactoryOptions) -> None:
        """Take the options; nothing is looked up before it is needed."""
        super().__init__(options)

    @property
    def dtype(self) -> ComputeDtype:
        """The dtype that the base is held in; of a quantised one, what it is unpacked to."""
        return self.compute_dtype

    @abstractmethod
    def base_stored(self) -> Iterator[Stored]:
        """The tensors of the frozen base, buffers aside."""

    @abstractmethod
    def base_memory(self) -> dict[str, int]:
        """Bytes of the frozen base, by part."""

    @cached_property
    def stored(self) -> tuple[Stored, ...]:
        """Every tensor that the base with its adapter holds once it is loaded."""
        bones = self.skeleton
        beside = adapter(bones, self.options.lora, quantised=self.quantised)
        return (*self.base_stored(), *beside, *buffers(bones, self.dtype))

    @property
    def learning(self) -> Trained:
        """The layers with an adapter."""
        lora = self.options.lora
        return Trained(self.skeleton.targets(lora), rank=lora.r, dropout=lora.dropout > 0)

    @cached_property
    def held(self) -> dict[str, int]:
        """Bytes of the base and of an adapter, by part."""
        return {**self.base_memory(), "the adapter": nbytes(self.stored, Part.ADAPTER)}

    @cached_property
    def memory(self) -> MemoryEstimate:
        """What the run keeps in memory beside activations."""
        learning = trained(self.stored)
        parts = self.base_memory()
        # With gradients and AdamW's two averages.
        kept = nbytes(self.stored, Part.ADAPTER) + 3 * nbytes(learning)
        parts["the adapters and their optimizer"] = kept
        return MemoryEstimate(parts, sum(tensor.elements for tensor in learning))

    def check(self) -> None:
        """Refuse what cannot work, before anything large is read.

        Raises:
            ModelError: The base is not found, not reachable or not a causal language model, or the
                adapter does not fit it.
            HardwareError: Too little memory, several GPUs without a launcher, no bfloat16.
        """
        bones, lora = self.skeleton, self.options.lora
        if not bones.linears:
            raise ModelError(
                f"base {self.options.base!r} has no linear layer that an adapter could stand "
                f"beside (model type {self.base.config.model_type!r}); take another base"
            )
        saved = bones.saved_modules(lora, quantised=self.quantised)
        embedding = bones.embedding.rsplit(".", 1)[-1]
        if bones.tied and bones.embedding in saved and embedding != "embed_tokens":
            raise ModelError(
                "model.lora.modules_to_save names the embedding, whose weights the output head "
                "shares, and PEFT keeps them shared where it is called embed_tokens, not "
                f"{embedding!r}; take it out, or take factory full"
            )
        # MiCA takes r directions of each layer's weight, EVA of what each layer is given.
        if lora.init in ("mica", "eva"):
            fewest, name = min(
                (wide if lora.init == "eva" else min(wide, high), name)
                for name, (wide, high) in bones.targets(lora).items()
            )
            if lora.r > fewest:
                raise ModelError(
                    f"model.lora.init {lora.init} takes r directions of each layer, and {name} has "
                    f"{fewest}; lower model.lora.r to that, or leave the layer out of "
                    "model.lora.target_modules"
                )
        super().check()

    def load_model(self, args: SFTConfig) -> PeftModel:
        """The frozen base with a new adapter, ready for `SFTTrainer`.

        The adapter's first weights follow from `args.seed`. `args` must be built before the model,
        as DeepSpeed ZeRO-3 makes itself known there.

        Raises:
            ModelError: The base cannot be loaded, or the adapter cannot be trained by DeepSpeed
                ZeRO-3.
            HardwareError: The device ran out of memory.
        """
        self.check()
        if is_zero3():
            self._require_zero3_knows_it()
        model = self.load_base(args)
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        set_seed(args.seed)
        with self._peft_explained():
            adapted: PeftModel = get_peft_model(
                model,
                LoraConfig(**self.lora_arguments()),
                # In ZeRO-3's buffers, adapters must have the dtype of a base that is not quantised
                # (github.com/huggingface/trl/issues/6089).
                autocast_adapter_dtype=self.quantised or not is_zero3(),
            )
        if self.options.lora.init == "orthogonal":
            make_orthogonal(adapted, "default")
        return adapted

    def lora_arguments(self) -> dict[str, Any]:
        """Arguments of `peft.LoraConfig`, as plain values."""
        lora, bones = self.options.lora, self.skeleton
        arguments: dict[str, Any] = {
            "task_type": "CAUSAL_LM",
            "r": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "use_rslora": lora.rslora,
            "use_dora": lora.dora,
            # By name: PEFT's own "all-linear" would also adapt layers that only see images, and
            # routers and experts of some mixtures.
            "target_modules": short_names(bones.targets(lora), among=bones.modules),
            "bias": "none",
            "revision": self.base.revision,
        }
        if lora.init != "default":
            arguments["init_lora_weights"] = lora.init
        if lora.init == "eva":
            # Every layer keeps the rank r; by itself, PEFT would give some layers none.
            arguments["eva_config"] = {"rho": 1.0}
        if saved := bones.saved_modules(lora, quantised=self.quantised):
            arguments["modules_to_save"] = sorted(saved)
            # Else PEFT would part the head from the embedding, and train the one alone.
            arguments["ensure_weight_tying"] = bones.tied and bones.embedding in saved
        return arguments

    def add_adapter(self, model: PeftModel, name: str, *, seed: int) -> None:
        """Give a model one more new adapter and make it the only one that acts and is trained.

        The others stay as they are, and have no part in what the new one learns.

        Args:
            model: As `load_model` or `load_adapters` gave it.
            name: What the adapter is to be called in this model.
            seed: Its first weights follow from this, as they do from `args.seed` in `load_model`.

        Raises:
            ModelError: The name is taken or no name, the model stands on another base, or the
                adapter does not fit it or has an embedding of its own that the output head shares.
        """
        self.check()
        require_name(name)
        if model.config.name_or_path != self.base.location():
            raise ModelError(
                f"the model stands on {model.config.name_or_path}, and this factory's base is "
                f"{self.base.name}; take the factory that made the model"
            )
        from peft import LoraConfig
        from transformers import set_seed

        if name in model.peft_config:
            raise ModelError(
                f"the model has an adapter named {name!r} already; take another name, or "
                "model.delete_adapter() first"
            )
        arguments = self.lora_arguments()
        if arguments.get("ensure_weight_tying"):
            raise ModelError(f"adapter {name!r} {_ONLY_THE_FIRST_IS_TIED}")
        set_seed(seed)
        with self._peft_explained():
            model.add_adapter(name, LoraConfig(**arguments))
        if self.options.lora.init == "orthogonal":
            make_orthogonal(model, name)
        model.set_adapter(name)

    def load_adapters(self, folders: Mapping[str, Path | str]) -> PeftModel:
        """One copy of the base with several saved adapters, to be asked and not to be trained.

        The first of them acts; `model.set_adapter(name, inference_mode=True)` switches.

        Args:
            folders: Where each adapter was saved, by the name that it gets.

        Raises:
            ModelError: A folder holds no adapter that can be loaded, or one that was trained on
                another base, or one that must be the first.
            HardwareError: There is too little memory.
        """
        if not folders:
            raise ModelError("no adapter was named; give at least one name with its folder")
        first = next(iter(folders))
        for name, folder in folders.items():
            require_name(name)
            config = saved_config(Path(folder), base=self.base)
            if config.get("ensure_weight_tying") and name != first:
                raise ModelError(f"adapter {name!r} {_ONLY_THE_FIRST_IS_TIED}")
        model: Any = self.load_base()
        from peft import PeftModel
        from safetensors import SafetensorError

        for name, folder in folders.items():
            try:
                if name == first:
                    model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
                else:
                    model.load_adapter(str(folder), adapter_name=name)
            except (
                SafetensorError,
                OSError,
                KeyError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as error:
                raise ModelError(
                    f"adapter {folder} cannot be loaded over {self.base.name}: "
                    f"{one_line(error)}; copy it again, or take the factory that it "
                    "was trained with"
                ) from error
        adapted: PeftModel = model.eval()
        return adapted

    def load_trained(self, folder: Path | None) -> PeftModel | PreTrainedModel:
        """The base with the adapter that a run saved, or alone, to be asked and not to be trained.

        Args:
            folder: Where the run saved the adapter; None for the base alone.

        Raises:
            ModelError: The folder holds no adapter that can be loaded, or one that was trained on
                another base.
            HardwareError: There is too little memory.
        """
        if folder is None:
            return self.load_base()
        return self.load_adapters({"default": folder})

    def settle(self, trainer: SFTTrainer) -> None:
        """Hold what is trained in float32, and begin at the rows if the options ask for it.

        `SFTTrainer` casts adapters on a quantised base to bfloat16, and PEFT keeps modules that are
        trained whole in the base's dtype: small updates are lost, float16's loss scaling refuses
        such gradients, CPUs are slow in it, FSDP refuses DoRA's magnitudes in float32 beside it,
        and as PEFT loads a checkpoint in float32, a resumed run would go on otherwise. Under ZeRO-3
        DeepSpeed casts by itself, and keeps a float32 copy.

        Raises:
            ModelError: The adapter is to begin at the rows' principal components, and they do not
                settle.
        """
        model: Any = trainer.model
        if self.compute_dtype != "bfloat16" or not is_zero3():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if self.options.lora.init == "eva":
            initialise_from_rows(trainer)

    def described_adapter(self) -> dict[str, Any]:
        """The adapter, as plain values."""
        lora = self.options.lora
        kind = " with ".join(
            name
            for name, chosen in (
                ("DoRA", lora.dora),
                ("rsLoRA scaling", lora.rslora and lora.dora),
                ("rsLoRA", lora.rslora and not lora.dora),
                ("LoRA", not lora.rslora and not lora.dora),
            )
            if chosen
        )
        start = "" if lora.init == "default" else f", init={lora.init}"
        facts: dict[str, Any] = {
            "adapter": f"{kind}, r={lora.r}, alpha={lora.alpha}, dropout={lora.dropout}{start}",
            "adapted_layers": len(self.skeleton.targets(lora)),
        }
        if lora.modules_to_save:
            saved = self.skeleton.saved_modules(lora, quantised=self.quantised)
            facts["trained_whole"] = ", ".join(saved)
        return facts

    def _require_zero3_knows_it(self) -> None:
        lora = self.options.lora
        if lora.dora:
            raise ModelError(f"model.lora.dora {DORA}")
        if lora.init == "eva":
            raise ModelError(f"model.lora.init {EVA}")

    @contextmanager
    def _peft_explained(self) -> Iterator[None]:
        """Name the base where PEFT cannot adapt its kind of model.

        Raises:
            ModelError: In place of what PEFT raises.
        """
        try:
            yield
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(
                f"PEFT cannot adapt base {self.options.base!r} so: "
                f"{one_line(error)}; choose other layers in "
                "model.lora.target_modules, or another base"
            ) from error
