"""What tests of several folders share."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from disco.guests import images
from disco.guests.images import Image


def pytest_configure() -> None:
    """Ctrl-C works here and in what tests start, even if whoever started pytest ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


Disco = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def debian() -> Image:
    """The image that users get by default; made by the first test that wants it."""
    return images.build("default")


@pytest.fixture(scope="session")
def disco() -> Disco:
    """Runs the command line as a user would: `disco("run", "--vms", "2")`."""

    def run(
        *words: str, typed: str = "", timeout: float = 300, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "disco.cli", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            input=typed,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run
