"""python -m sfda_edge.cli: the program sfda-edge, for torchrun and for where it is not on PATH."""

import sys

from sfda_edge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
