"""The workshop of the book: what made `data/` and `data/results`. It uses `mcliplib`, which never uses it."""
