"""A run: options → plan → ranks → engine → loop → checkpoints."""
