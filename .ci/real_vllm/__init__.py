"""Tidegate against real vLLM on a CPU, driven by the openai SDK."""
