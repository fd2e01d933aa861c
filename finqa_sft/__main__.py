"""`python -m finqa_sft`, and so `accelerate launch -m finqa_sft`."""

from __future__ import annotations

from finqa_sft.cli.main import entry

if __name__ == "__main__":
    entry()
