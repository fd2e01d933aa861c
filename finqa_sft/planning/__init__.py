"""What a recipe needs before it runs: memory, GPUs that it fits on, steps and time."""
