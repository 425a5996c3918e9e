"""Tokens as they were told, as Tidegate counted them and as vLLM did."""

#: Probes of ours within one comparison: an idle worker is asked for one token every 30 s.
PROBES = 2


def alike(told, ours, theirs):
    """Whether all count the same, but for what our own probes asked vLLM: a token of prompt, and one of answer at most."""
    prompts, answers = theirs[0] - ours[0], theirs[1] - ours[1]
    return tuple(told) == tuple(ours) and 0 <= prompts <= PROBES and answers in (0, prompts)
