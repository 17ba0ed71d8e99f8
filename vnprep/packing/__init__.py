"""Lengths → packed rows: an index over stored examples, in memory or beside the shards."""
