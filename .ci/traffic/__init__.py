"""Many requests at once: limits, queues, several servers, files that change."""
