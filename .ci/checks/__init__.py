"""What the check scripts share: a report, a running Tidegate, its processes and figures."""
