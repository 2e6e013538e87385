"""`python -m service` is the command `fleetwatt`."""

from service.cli import main

main()
