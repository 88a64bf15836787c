"""The reference system's training command: `textlora train` into models/best_model."""

import sys

from textlora.cli.main import main

PLACES = ["--out", "models/best_model", "--pictures", "results/visualizations"]

if __name__ == "__main__":
    main(["train", *PLACES, *sys.argv[1:]])
