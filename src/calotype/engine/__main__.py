"""``python -m calotype.engine --fd N``: started by the pool, never by hand."""

from __future__ import annotations

import argparse

from calotype.engine.process import serve

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m calotype.engine", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the server")
    serve(parser.parse_args().fd)
