"""``python -m latentset``: the command line."""

from latentset.cli.main import main

if __name__ == "__main__":
    main()
