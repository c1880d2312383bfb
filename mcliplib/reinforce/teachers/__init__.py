"""Teachers of dataset reinforcement: open_clip's models, and locked towers with heads trained on our own pairs.

`make_teacher` imports a teacher's libraries only when it is made.
"""

from mcliplib.reinforce.teachers.specs import ENSEMBLE, make_teacher

__all__ = ["ENSEMBLE", "make_teacher"]
