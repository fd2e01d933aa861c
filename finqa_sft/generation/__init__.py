"""Generation: completions of many prompts by a model at hand, trained or in training."""
