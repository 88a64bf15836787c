"""What a benchmark needs beside the package, asked for before anything is computed."""

import sys
from importlib.util import find_spec


def require(install: str, *modules: str) -> None:
    """Ends the script with exit code 2 and one line if a module is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        print(f"{', '.join(missing)}: not installed; run pip install {install}", file=sys.stderr)
        sys.exit(2)
