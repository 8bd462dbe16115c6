"""python -m export.engine BUNDLE: build a TensorRT engine from a bundle's graph, and prove it."""

import sys

from export.engine.request import main

if __name__ == "__main__":
    sys.exit(main())
