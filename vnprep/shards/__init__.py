"""Prepared data on disk: Arrow IPC shards and the manifest that vouches for them."""
