"""From chat messages to token ids and labels, by the tokenizer's own chat template.

The prompt is never supervised; the completion is, with the end-of-turn token that stops generation.
The ids equal those of TRL's own preparation of prompt-completion rows (TRL 1.16,
`trl/trainer/sft_trainer.py`, `tokenize_fn`) wherever the prompt's tokens are a prefix of the whole.
"""

from finqa_sft.encoding.encoder import Encoder
from finqa_sft.encoding.guarantees import BrokenGuarantee, Guarantee
from finqa_sft.encoding.rows import IGNORED, EncodedRow
from finqa_sft.encoding.templates import PLAIN_CHAT_TEMPLATE

__all__ = [
    "IGNORED",
    "PLAIN_CHAT_TEMPLATE",
    "BrokenGuarantee",
    "EncodedRow",
    "Encoder",
    "Guarantee",
]
