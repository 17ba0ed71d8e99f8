"""vnprep: from Vietnamese text and request/response pairs to a trained text-generation model."""

__version__ = "0.3.0"
