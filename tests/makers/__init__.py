"""Makers of test data: codecs, stores, runs, and stand-ins for what cannot run in a test."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")
PYTHONPATH = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
"""What worker processes import this package and ours from."""
