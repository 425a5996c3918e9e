"""Prometheus text, read as far as the checks need it."""

import re

_LINE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Samples:
    """The samples of one scrape."""

    def __init__(self, text):
        self._samples = []
        for line in text.splitlines():
            match = None if line.startswith("#") else _LINE.match(line)
            if match:
                labels = dict(_LABEL.findall(match[2] or ""))
                self._samples.append((match[1], labels, float(match[3])))

    def sum(self, name, **labels):
        """The sum of the samples `name` that have these labels; 0 where there is none."""
        return sum(value for _, _, value in self._matching(name, labels))

    def has(self, name, **labels):
        """Whether there is such a sample."""
        return bool(self._matching(name, labels))

    def _matching(self, name, labels):
        def fits(sample):
            return sample[0] == name and labels.items() <= sample[1].items()

        return [sample for sample in self._samples if fits(sample)]
