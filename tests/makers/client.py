"""``latentset`` in a process of its own, with the stand-in codec instead of TensorFlow."""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    # A shell that runs the tests in the background lets its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    sys.path.insert(0, str(Path(__file__).parents[2]))

    from latentset.pipeline.jobs import coder
    from tests.makers import standin

    # Before the options take it for their default.
    coder.TENSORFLOW = standin.ENGINE

    from latentset.pipeline.jobs import cluster

    # As if a machine under heavy load did not get done with closing in its time.
    cluster.CLOSE_S = float(os.environ.get("LATENTSET_TEST_CLOSE_S", cluster.CLOSE_S))

    from latentset.cli.main import main

    sys.argv[0] = "latentset"
    main()
