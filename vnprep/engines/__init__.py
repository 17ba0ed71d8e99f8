"""Who runs the units."""
