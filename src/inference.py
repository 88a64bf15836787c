"""The reference system's inference command: `textlora predict` with models/best_model."""

import sys

from textlora.cli.main import main

if __name__ == "__main__":
    words = sys.argv[1:]
    named = bool(words) and not words[0].startswith("-")
    main(["predict", *([] if named else ["models/best_model"]), *words])
