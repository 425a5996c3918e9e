"""The admin API, held against tools that others wrote."""
