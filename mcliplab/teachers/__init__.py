"""Fitting and scoring the local teachers, whose heads are in `data/teachers`."""
