"""`python -m bnstudy`: the command line."""

from bnstudy.cli import main

main()
