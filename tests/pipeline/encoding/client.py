"""``latentset`` in a process of its own, with the stand-in codec in TensorFlow's place."""

import importlib
import sys

if __name__ == "__main__":
    from latentset.pipeline.encoding import engine

    engine.TENSORFLOW = importlib.import_module(
        "standin"
    ).ENGINE  # before the job's module takes it for its default

    from latentset.datasets.cli import main

    sys.argv[0] = "latentset"
    main()
