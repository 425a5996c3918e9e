"""Every option against real vLLM: its parser, an install of a version, a start with many of them."""
