"""python3 -m checks.sweep MARK: ends what a run left, and fails if it left anything."""

import sys

from checks import processes


def main(mark):
    """Tells of each process that is left before it is ended."""
    left = [pid for pid in processes.marked(mark)]
    for pid in left:
        print(f"left behind: {pid} {' '.join(processes.arguments(pid))[:160]}")
    processes.end_marked(mark)
    return 1 if left else 0


sys.exit(main(sys.argv[1]))
