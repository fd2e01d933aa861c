"""Fine-tune language models on financial documents: a plugin for TRL's `SFTTrainer`."""

from __future__ import annotations

__version__ = "0.1.0"
