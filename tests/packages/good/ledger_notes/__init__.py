"""Notes on ledgers: a reader, a formatter and a callback for finqa_sft."""
