"""Tokenizers: train one, load any, turn text into ids."""
