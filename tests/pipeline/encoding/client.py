"""``latentset`` in a process of its own, with the stand-in codec in TensorFlow's place."""

import importlib
import os
import signal
import sys

if __name__ == "__main__":
    # A shell that runs the tests in the background lets its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from latentset.pipeline.encoding import cluster, engine

    engine.TENSORFLOW = importlib.import_module(
        "standin"
    ).ENGINE  # before the job's module takes it for its default

    # As if a machine under heavy load did not get done with closing in its time.
    cluster.CLOSE_S = float(os.environ.get("LATENTSET_TEST_CLOSE_S", cluster.CLOSE_S))

    from latentset.datasets.cli import main

    sys.argv[0] = "latentset"
    main()
