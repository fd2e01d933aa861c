"""Prints something and ends the program, as a script does that was never meant to be imported."""

from __future__ import annotations

import sys

print("usage: ledger_exits FILE")
sys.exit(1)
