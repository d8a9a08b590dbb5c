"""The command line. `app` says what there is; each other module does one command.

`disco --help` answers at once: `app` imports nothing but typer, and a command imports what it needs when it
runs. What a program reads goes to standard output; progress, warnings and errors to standard error.

    status  meaning
    0-255   that of the guest's command, or of its shell; of several VMs the first that is not 0
    2       Disco was asked for something that cannot be; one line says what would be possible
    124     a time limit ended the run
    125     a VM ended otherwise than by powering off
    130     Ctrl-C
"""

import os
import sys

from disco.cli import status


def main() -> None:
    """Entry point. Ctrl-C counts from here on, while the rest is still being imported."""
    # Disco multiplies no matrices: NumPy's threads for that would only take memory, and time to spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from disco.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(status.INTERRUPTED)
