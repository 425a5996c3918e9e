"""Compares our verdicts with those of a real vLLM's argument parser.

usage: PYTHON-OF-VLLM parser.py < cases.jsonl

Each line is {"case", "argv", "verdict"}, as `tidegate options --format cases`
prints them. The parser is built once; a case costs a fraction of a millisecond.
"""

import contextlib
import io
import json
import os
import sys

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def serve_parser():
    """The parser behind `vllm serve`, where this version has it."""
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    parser = FlexibleArgumentParser(prog="vllm")
    serve = parser.add_subparsers(dest="subparser").add_parser("serve")
    make_arg_parser(serve)
    return parser


def verdict(parser, argv):
    """What the real parser says, and its last words."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(argv)
        except (SystemExit, ValueError, TypeError, IndexError) as error:
            return "refuse", said.getvalue().strip().splitlines()[-1:] or [repr(error)]
    return "accept", []


def main():
    parser = serve_parser()
    cases = [json.loads(line) for line in sys.stdin if line.strip()]
    wrong = 0
    for case in cases:
        real, words = verdict(parser, case["argv"])
        if real != case["verdict"]:
            wrong += 1
            print(f"{case['case']}: we {case['verdict']}, vLLM would {real}: {case['argv'][6:]} {words}")
    accepted = sum(case["verdict"] == "accept" for case in cases)
    print(f"{len(cases)} cases, {accepted} accepted, {wrong} verdicts differ")
    return 1 if wrong or not cases else 0


sys.exit(main())
