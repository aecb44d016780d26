"""`python -m textopia_fast` is the program `textopia-fast`."""

from .cli import main

raise SystemExit(main())
