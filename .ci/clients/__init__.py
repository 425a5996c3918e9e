"""The SDKs and tools that people use, against the built-in stand-in engine."""
