"""`python -m textlora` is the command `textlora`."""

from textlora.cli.main import main

if __name__ == "__main__":
    main()
