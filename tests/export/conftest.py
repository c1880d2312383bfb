"""Exports of the shipped student, made once."""

import pytest

import mcliplib
from mcliplib.export import export


@pytest.fixture(scope="session")
def student():
    return mcliplib.create_model(pretrained="student")


@pytest.fixture(scope="session")
def exported(student, tmp_path_factory):
    """A folder for each set of options, and its card."""
    made = {}

    def exported(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("export") / "out"
            made[key] = folder, export(student, folder, **options)
        return made[key]

    return exported
