"""Look at prepared data: rows position by position, and whether every byte is as written."""
