"""Tests run with the default vector instructions, or with what there is on a CPU without them."""

import os

from latentset.pipeline.cpu_isa import VARIABLE, choose_cpu_isa

os.environ.setdefault(VARIABLE, choose_cpu_isa())
