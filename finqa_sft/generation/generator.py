"""Completions of many prompts: in batches, and with what prompts share read once.

The questions of a document come with the same page. Its tokens are read once, and the cache that
results is copied for each question: memory traffic takes the place of a page's arithmetic. Both the
page and the rest run through the model's stock `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache

from finqa_sft.errors import HardwareError, ModelError
from finqa_sft.generation.decoding import Completion, Decoding, Prompt
from finqa_sft.generation.prefixes import Row, grouped, shared_layout, take
from finqa_sft.generation.reach import cache_argument, reach, why_apart
from finqa_sft.generation.sampling import OwnDraws, own_numbers
from finqa_sft.generation.state import generating, unwrapped

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finqa_sft.encoding import Encoder


def stop_ids(encoder: Encoder, model: PreTrainedModel | PeftModel) -> tuple[int, ...]:
    """Ids that end a completion: the template's, the tokenizer's, and those the base names.

    What a base's `generation_config` names counts if it is a control token of the tokenizer; a
    config without that entry has the default of its family there, which can be any word.
    """
    named = unwrapped(model).generation_config.eos_token_id
    each = named if isinstance(named, list) else [] if named is None else [named]
    added = encoder.tokenizer.added_tokens_decoder
    control = {token for token in each if token in added and added[token].special}
    return tuple(sorted({*encoder.stop_ids, *control}))


class Generator:
    """Completes prompts with a model, which may be in the middle of its training.

    Attributes:
        batch_size: Rows of a batch; made smaller once the memory was too small.
        shares_prefix: Whether what prompts of a document have in common is read once, wherever that
            saves work and the cache holds the whole row.
        plain_because: Why it is not; empty where it is.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Sequence[int],
        decoding: Decoding,
        batch_size: int,
        share_prefix: bool = True,
    ) -> None:
        """Look at what the model can do.

        Args:
            model: The model, unwrapped where it is trained in a distributed way.
            tokenizer: Decodes what the model writes.
            stop_ids: Tokens that end a completion.
            decoding: How completions are generated.
            batch_size: Rows that are completed at a time, samples counted.
            share_prefix: Whether to read common beginnings once; the tokens are the same either
                way, but for rounding.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = tuple(stop_ids)
        self._decoding = decoding
        self._reach = reach(unwrapped(model))
        # It stands where nothing reads it: before a row, or after its end.
        self._pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.batch_size = batch_size
        self.plain_because = why_apart(unwrapped(model)) if share_prefix else "it is switched off"
        self.shares_prefix = not self.plain_because

    def complete(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[Completion]]]:
        """Complete prompts, the longest first; each comes once, when its batch is done.

        One sample is decoded greedily. Several are drawn with numbers that follow from the seed,
        the prompt and the sample, so they do not depend on the batches, but for rounding, and
        torch's own random numbers stay untouched. Between two batches the model is as it was.

        A row beyond the length up to which RoPE is the same for all rows, and one that comes near
        the end of the model's positions, runs alone; the latter gets fewer new tokens.

        Args:
            prompts: What to complete.

        Yields:
            Index of a prompt, and its completions, one a sample.

        Raises:
            ModelError: A prompt is longer than the model has positions.
            HardwareError: A single row does not fit into memory.
        """
        rows = [row for index, prompt in enumerate(prompts) for row in self._rows(index, prompt)]
        pending = grouped(prompts, rows, share=self.shares_prefix)
        done: dict[int, dict[int, Completion]] = {}
        while pending:
            groups = take(pending, most=self.batch_size)
            batch = [row for group in groups for row in group]
            written = self._written(groups)
            if written is None:
                self._make_smaller(batch)
                pending[:0] = groups
                continue
            for row, tokens in zip(batch, written, strict=True):
                done.setdefault(row.prompt, {})[row.sample] = self._completion(tokens, row.new)
            for index in dict.fromkeys(row.prompt for row in batch):
                if len(done[index]) == self._decoding.samples:
                    samples = done.pop(index)
                    yield index, [samples[number] for number in range(self._decoding.samples)]

    def _rows(self, index: int, prompt: Prompt) -> Iterator[Row]:
        """The rows of a prompt."""
        new = self._decoding.max_new_tokens
        length, positions, steady = len(prompt.ids), self._reach.positions, self._reach.steady
        if positions is not None and length > positions:
            raise ModelError(
                f"a prompt of document {prompt.document!r} has {length} tokens, and the model has "
                f"positions for {positions}; lower formatter.max_length to {positions}"
            )
        # The last token that is written is never read.
        left = new if positions is None else min(new, positions - length + 1)
        alone = left < new or (steady is not None and length + new > steady)
        for sample in range(self._decoding.samples):
            yield Row(index, sample, prompt.ids, left, alone)

    def _written(self, groups: list[list[Row]]) -> list[list[int]] | None:
        """New tokens of each row, padded to one length; None where they do not fit into memory."""
        try:
            with generating(self._model) as model:
                return self._generated(model, groups)
        except torch.OutOfMemoryError:
            # Not here: until this is left, the error holds on to the tensors of its frames.
            pass
        torch.cuda.empty_cache()
        return None

    def _generated(self, model: PreTrainedModel, groups: list[list[Row]]) -> list[list[int]]:
        rows = [row for group in groups for row in group]
        more: dict[str, Any] = {}
        layout = shared_layout(groups, room=self._reach.room) if self.shares_prefix else None
        if layout is None:
            ids, mask = self._padded([row.ids for row in rows], model.device)
        else:
            ids, mask = self._padded(layout.prefixes, model.device)
            cache = DynamicCache(config=model.config)
            # Reading is all that is wanted: the token that is written is not in the cache.
            more[cache_argument(model)] = cache
            self._generate(model, ids, mask, new=1, **more)
            owners = torch.tensor(layout.owners, device=model.device)
            cache.batch_select_indices(owners)
            rest, rest_mask = self._padded(layout.suffixes, model.device)
            ids = torch.cat([ids[owners], rest], dim=1)
            mask = torch.cat([mask[owners], rest_mask], dim=1)
        if self._decoding.samples > 1:
            more["logits_processor"] = [self._draws(rows, ids)]
        output = self._generate(model, ids, mask, new=rows[0].new, **more)
        written: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return written

    def _generate(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, *, new: int, **more: Any
    ) -> torch.Tensor:
        """What `generate` gives, greedily: `[rows, tokens read and written]`.

        Positions are counted along the mask, so padding between two parts of a row has none.
        """
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=new,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(self._stop_ids) or None,
            pad_token_id=self._pad,
        )
        # Processes complete other prompts each, so their steps must not wait for each other.
        output: torch.Tensor = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            synced_gpus=False,
            **more,
        )
        return output

    def _draws(self, rows: Sequence[Row], ids: torch.Tensor) -> OwnDraws:
        """What draws the rows' tokens."""
        asked = self._decoding
        numbers = [
            own_numbers(
                row.ids, sample=row.sample, seed=asked.seed, count=row.new, device=ids.device
            )
            for row in rows
        ]
        return OwnDraws(
            torch.stack(numbers),
            prompt=ids.shape[1],
            temperature=asked.temperature,
            top_p=asked.top_p,
        )

    def _padded(
        self, each: Sequence[Sequence[int]], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask `[rows, tokens]`, int64, with padding on the left."""
        width = max(map(len, each))
        ids = [[self._pad] * (width - len(one)) + list(one) for one in each]
        mask = [[0] * (width - len(one)) + [1] * len(one) for one in each]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _completion(self, tokens: list[int], most: int) -> Completion:
        """A completion, without the padding after its end."""
        stops = set(self._stop_ids)
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        text = self._tokenizer.decode(
            tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Completion(str(text), most if end is None else end + 1, end is not None)

    def _make_smaller(self, batch: Sequence[Row]) -> None:
        """Have later batches at most half as large as one that did not fit.

        Raises:
            HardwareError: It was one row.
        """
        if len(batch) > 1:
            self.batch_size = len(batch) // 2
            return
        raise HardwareError(
            f"a prompt of {len(batch[0].ids)} tokens with up to {batch[0].new} new ones does not "
            f"fit into the memory of {unwrapped(self._model).device}; lower formatter.max_length "
            "or evaluation.max_new_tokens, hold the base in 4 bits with model.factory=qlora, or "
            "end what else runs there"
        )
