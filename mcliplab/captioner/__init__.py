"""Fitting and judging the local captioner, whose decoders are in `data/captioner`."""
