"""Models of a stand-in hub, fetched through the real library."""
