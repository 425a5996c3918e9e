"""Tidegate killed at system calls of its transitions, from outside: no hook in it."""
