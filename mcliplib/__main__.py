from mcliplib.cli import main

raise SystemExit(main())
