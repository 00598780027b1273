"""Command line: `python -m llava.data.inspect`."""

import sys

from llava.data.inspect.command import main

if __name__ == "__main__":
    sys.exit(main())
