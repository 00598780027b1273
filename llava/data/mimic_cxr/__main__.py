"""Command line: `python -m llava.data.mimic_cxr`."""

import sys

from llava.data.mimic_cxr.convert import main

if __name__ == "__main__":
    sys.exit(main())
