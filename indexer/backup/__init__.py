"""Copies of a home: written while it is in use, verified, and restored elsewhere."""
