"""Coding agents and agent libraries, unmodified, as people run them."""
