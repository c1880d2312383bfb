"""Captioners of dataset reinforcement: CoCa as in the paper, and a small decoder trained on our own captions.

`make_captioner` imports a captioner's libraries only when it is made.
"""

from mcliplib.reinforce.captioners.specs import make_captioner

__all__ = ["make_captioner"]
