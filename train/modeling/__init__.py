"""The model: its shape, its layers, its loss, and the folder that it is kept in."""
