"""`python -m disco.cli`, for where the script `disco` is not on the path."""

from disco.cli import main

main()
