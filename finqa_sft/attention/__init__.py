"""Attention over trees: a document's tokens once, its questions as branches."""

from finqa_sft.attention.branches import Branches
from finqa_sft.attention.stock import stock_attention
from finqa_sft.attention.support import refuse_unsupported

__all__ = ["Branches", "refuse_unsupported", "stock_attention"]
