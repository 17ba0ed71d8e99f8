"""Stored examples → batches for training, in an order that is a function of (seed, step)."""

from vnprep.loading.loader import PackedLoader, PaddedLoader
from vnprep.loading.mixture import MixedLoader

__all__ = ["MixedLoader", "PackedLoader", "PaddedLoader"]
