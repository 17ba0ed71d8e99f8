"""Inputs → work units → records."""
