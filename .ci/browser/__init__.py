"""A person at the dashboard, in a real browser."""
