"""Stored examples → batches for training, in an order that is a function of (seed, step)."""
