"""`python -m textopia_fast` is the program `textopia-fast`."""

from textopia_fast.cli import main

raise SystemExit(main())
