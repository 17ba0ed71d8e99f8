"""Data sets in the forms that other training programs read."""
