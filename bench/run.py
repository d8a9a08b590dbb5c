"""`python bench/run.py`: puts the checkout on the path and runs `bench.command`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))
runpy.run_module("bench.command", run_name="__main__")
