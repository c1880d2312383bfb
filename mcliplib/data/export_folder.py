"""Sets as folders of pictures with captions, for `mcliplib reinforce --input FOLDER`, and to look at."""

import json
from pathlib import Path

from mcliplib.data.reader import image_extension, raw_samples
from mcliplib.data.registry import data_root, get_card, shard_paths
from mcliplib.data.shards import safe_key
from mcliplib.errors import UserError
from mcliplib.files import locked, read_json, write_text, writing

LIST = "metadata.jsonl"  # the name and columns that Hugging Face's `imagefolder` reads too
_BESIDE = {"LICENSE": "LICENSE", "README.md": "README.md", "ATTRIBUTION.tsv": "ATTRIBUTION.txt"}


def export_folder(name: str, output: Path) -> Path:
    """Write a set as a folder: its pictures as they are stored, a list of captions, licence and attributions.

    `metadata.jsonl` has a line for each picture: `file_name`, `caption`, `key`, and what else the set says of it. It is
    written last, so a folder without it was not finished, and the same call finishes it. The attributions are a table
    with tabs; they end in .txt so that they are not taken for a list of captions.

    Args:
        name: a data set.
        output: the folder to write it to, as a folder `name` there.

    Returns:
        The folder.

    Raises:
        UserError: no such set, or a damaged one; or the folder holds an export already.
        WriteError: a file cannot be written.
    """
    get_card(name)  # an unknown name ends here, with the known ones
    folder = output / name
    if (folder / LIST).exists():
        raise UserError(f"{folder}: is there already; remove it, or name another folder")
    lines, broken = list[str](), dict[str, str]()
    with locked(folder):
        for theirs, ours in _BESIDE.items():
            if (path := data_root() / name / theirs).is_file():
                write_text(folder / ours, path.read_text(encoding="utf-8"))
        for shard in shard_paths(name):
            for key, members in raw_samples(str(shard), broken):
                extension = image_extension(members)
                if members.fault or broken or extension is None:
                    raise UserError(f"{shard}: {key} is not whole; fetch or build the set again")
                file = f"{safe_key(key)}.{extension}"
                with writing(folder / file):  # the list, which comes last, makes it whole
                    (folder / file).write_bytes(members[extension])
                caption = members.get("txt", b"").decode().strip()
                meta = read_json(members.get("json", b"{}"), f"{shard}: {key}")
                lines.append(
                    json.dumps({**meta, "file_name": file, "caption": caption, "key": key}, ensure_ascii=False)
                )
        write_text(folder / LIST, "\n".join(lines) + "\n")
    return folder
