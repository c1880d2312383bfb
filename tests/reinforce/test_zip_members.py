"""Members of zip archives: what zipfile reads, and damage is found."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcliplib.reinforce.archives import read_member


def archive_of(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@given(
    members=st.dictionaries(st.text("abcé/", min_size=1, max_size=8), st.binary(max_size=300), min_size=1, max_size=4),
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    before=st.binary(max_size=20),
)
def test_members_are_those_that_zipfile_reads(members, compression, before):
    content = before + archive_of(members, compression)  # an archive may follow something else
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in members:
            assert read_member(content, archive, name) == archive.read(name) == members[name]


def test_damage_is_found():
    content = archive_of({"a": b"embedding" * 20, "b": b"last"})
    for place in (*range(0, 4), 40, 100):  # the member's header, and its content
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        with zipfile.ZipFile(io.BytesIO(damaged)) as archive, pytest.raises(zipfile.BadZipFile):
            read_member(bytes(damaged), archive, "a")
