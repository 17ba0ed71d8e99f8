"""A whole run: plan, refuse, make what is missing, resume, commit."""
