"""`python -m mcliplib`."""

from mcliplib.cli import main

raise SystemExit(main())
