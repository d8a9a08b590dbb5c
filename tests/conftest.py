"""What all tests share: nothing of the user's own cache or configuration is touched unless asked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("disco._engine") is None or not any(
    Path(p, "disco").glob("_engine*.so") for p in sys.path
):
    sys.path.insert(0, str(Path(__file__).parent / "monitor"))
    import fake_engine

    sys.modules["disco._engine"] = fake_engine
