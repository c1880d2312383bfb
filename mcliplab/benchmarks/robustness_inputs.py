"""The table of bad inputs of `mcliplib benchmark robustness`, and the good ones that they are spoiled copies of.

Each row is a kind, a name for people, a function that makes the input in the folder of its case and says what is typed,
the verdict that it must have, and what must be printed.
"""

import contextlib
import gzip
import http.server
import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from mcliplab.benchmarks.robustness import PROGRAM, Case, Command, Place, Verdict, no_fault

GOOD = 12  # pictures beside a bad one: more than a tenth that is bad would end a run
SIDE = 96  # pixels
MODEL = "model.safetensors"
SET = "set"  # a reinforced one
TRAINING = ("--preset", "mobileclip_pico", "--batch-size", "4", "--samples", "8", "--warmup-steps", "0")
_SEEN_WHOLE = ("--crop-scale", "1", "1", "--ops", "0", "--augmentations", "1", "--dtype", "float32")
_MAX_ANGLE = 0.95  # least cosine of two answers to one picture
_HTML = b"<!DOCTYPE html><html><body>Not found</body></html>"
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
Rows = Sequence[tuple[str, Callable[[Place], Any], Verdict, str]]


# Good things


def drawing(number: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A picture that looks different when it is turned, mirrored, inverted or of another number."""
    image = Image.new("RGB", size, (40 + 15 * number % 200, 200 - 13 * number % 150, 90))
    draw, (width, height) = ImageDraw.Draw(image), size
    draw.rectangle((0, 0, width // 2, height // 5), fill=(250, 30, 20 * number % 250))
    draw.ellipse((width // 8, height // 2, width // 2, height - height // 8), fill=(250, 240, 40))
    draw.polygon(((width // 2, height), (width, height), (width, height // 3)), fill=(10, 20, 60))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The file of a picture."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tar_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of these files, in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def good_members() -> list[tuple[str, bytes]]:
    """The files of a good shard."""
    pairs = [((f"g{n}.png", encoded(drawing(n))), (f"g{n}.txt", b"a red box")) for n in range(GOOD)]
    return [member for pair in pairs for member in pair]


def make_kit(kit: Path, *, reinforced: bool = True) -> None:
    """Good pictures, a model and a reinforced set.

    Args:
        kit: folder that is made.
        reinforced: whether the set is made too, which takes a command of its own.

    Raises:
        RuntimeError: the command line does not even make these.
    """
    import torch

    import mcliplib

    (kit / "pictures").mkdir(parents=True)
    for number in range(GOOD):
        (kit / f"pictures/g{number}.png").write_bytes(encoded(drawing(number)))
    write_list(kit / "pictures", [])
    torch.manual_seed(0)
    vocabulary = mcliplib.restrict_vocab(["a red box"])
    mcliplib.save_checkpoint(mcliplib.create_model("mobileclip_pico", vocab=vocabulary), kit / MODEL)
    if not reinforced:
        return
    arguments = reinforcing(kit / "pictures", kit / SET, "--augmentations", "2", "--shard-size", "4").arguments
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"a good set cannot be made: {done.stderr}")


def write_list(folder: Path, rows: Sequence[str], name: str = "list.csv", start: str = "image,caption") -> Path:
    """A list of the good pictures and of more rows."""
    lines = [start, *(f"g{number}.png,a red box" for number in range(GOOD)), *rows]
    (folder / name).write_bytes("\n".join([*lines, ""]).encode(errors="surrogateescape"))
    return folder / name


def evaluating(data: Path | str, model: Path, *more: str) -> Command:
    """Scores of a model on own pictures."""
    return Command(["evaluate", "--model", str(model), "--data", str(data), *more])


def reinforcing(data: Path | str, output: Path, *more: str) -> Command:
    """Reinforce with the smaller teacher."""
    usual = ["--teachers", "lit-lite0", "--threads", "1"]
    return Command(["reinforce", "--input", str(data), "--output", str(output), *usual, *more])


def training(data: Path | str, output: Path, *more: str) -> Command:
    """Train the smallest model for two steps."""
    return Command(["train", "--output", str(output), "--data", str(data), *TRAINING, *more])


def with_good_ones(place: Place, files: Mapping[str, bytes] = {}, rows: Sequence[str] = ()) -> Path:
    """A copy of the good pictures, with these files and rows of the list."""
    folder = place.folder / "in"
    shutil.copytree(place.kit / "pictures", folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return write_list(folder, [*rows, *(f"{name},a red box" for name in files)])


# Pictures

Twins = tuple[bytes, Image.Image, Image.Image]  # the file, how it must be read, how it must not


def upright() -> Twins:
    """A JPEG that EXIF data turn."""
    stored, exif = drawing(17), Image.Exif()
    exif[0x0112] = 6
    return (
        encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif),
        stored.transpose(Image.Transpose.ROTATE_270),
        stored,
    )


def cmyk() -> Twins:
    """A JPEG of printers' colours."""
    image = drawing(17)
    return (
        encoded(image.convert("CMYK"), "JPEG", quality=100, subsampling=0),
        image,
        Image.eval(image, lambda value: 255 - value),
    )


def sixteen_bits() -> Twins:
    """A grey PNG of 16 bits, which clipped to 8 is white."""
    grey = drawing(17).convert("L")
    deep = grey.convert("I").point(lambda value: value * 257).convert("I;16")
    return encoded(deep), grey.convert("RGB"), Image.new("RGB", grey.size, "white")


def animated() -> Twins:
    """A WebP of two frames."""
    first, second = drawing(17), drawing(18).transpose(Image.Transpose.ROTATE_180)
    return encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True), first, second


def cut_out() -> Twins:
    """A PNG whose transparent pixels hide black."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).ellipse((8, 8, 70, 70), fill=255)
    black = Image.composite(drawing(17), Image.new("RGB", mask.size, "black"), mask)
    stored = black.copy()
    stored.putalpha(mask)
    return encoded(stored), Image.composite(drawing(17), Image.new("RGB", mask.size, "white"), mask), black


def large(side: int) -> Twins:
    """A JPEG of side x side pixels."""
    small = drawing(17).convert("L")
    stored = small.resize((side, side), Image.Resampling.NEAREST)
    plain = small.resize((960, 960), Image.Resampling.NEAREST).convert("RGB")
    return encoded(stored, "JPEG", quality=90), plain, plain.transpose(Image.Transpose.ROTATE_180)


def read_rightly(make: Callable[[], Twins], suffix: str) -> Callable[[Place], Command]:
    """The file beside pictures of how it must be read, and how it must not."""

    def made(place: Place) -> Command:
        content, right, wrong = make()
        data = with_good_ones(
            place, {f"bad.{suffix}": content, "right.png": encoded(right), "wrong.png": encoded(wrong)}
        )
        return reinforcing(data, place.folder / "out", *_SEEN_WHOLE)

    return made


def teacher_saw_it_right(place: Place) -> str:
    """The teacher's answer to the picture must be that to its twin."""
    from mcliplib.reinforce import AugmentSettings
    from mcliplib.reinforce.reading import read_reinforced

    settings = AugmentSettings(size=224, crop_scale=(1.0, 1.0), num_ops=0)
    shards = sorted((place.folder / "out").glob("*.tar"))
    found = {one.key: one.image_emb[0].float() for one in read_reinforced(shards, settings=settings)}
    if not {"bad", "right", "wrong"} <= found.keys():
        return "the picture is not in the set"
    right, wrong = (float(found["bad"] @ found[name]) for name in ("right", "wrong"))
    if right < max(_MAX_ANGLE, wrong):
        return f"misread: cosine {right:.3f} with the right reading, {wrong:.3f} with the wrong one"
    return ""


def picture(content: bytes | Callable[[], bytes], name: str = "bad.jpg") -> Callable[[Place], Command]:
    """A bad picture among good ones."""

    def made(place: Place) -> Command:
        data = with_good_ones(place, {name: content if isinstance(content, bytes) else content()})
        return evaluating(data, place.kit / MODEL)

    return made


def bomb_png() -> bytes:
    """A PNG of a few hundred kilobytes that is 30,000 pixels wide and high."""
    return encoded(Image.new("1", (30_000, 30_000)))


def hiding(package: str, command: Command, place: Place) -> Command:
    """The command where this package cannot be imported."""
    (place.folder / "hidden").mkdir()
    (place.folder / f"hidden/{package}.py").write_text("raise ImportError\n")
    return Command(command.arguments, {"PYTHONPATH": str(place.folder / "hidden")})


def heic(place: Place) -> Command:
    """A picture of a telephone, without its decoder."""
    stored = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    return hiding("pillow_heif", picture(stored, "bad.heic")(place), place)


def no_good_picture(place: Place) -> Command:
    """Nothing but damaged pictures."""
    (place.folder / "a.png").write_bytes(_HTML)
    (place.folder / "list.csv").write_text("image,caption\na.png,x\n")
    return evaluating(place.folder / "list.csv", place.kit / MODEL)


_RIGHT = r"15 samples; skipped: none"
_TWINS = (
    ("turned by its EXIF data", upright, "jpg"),
    ("CMYK", cmyk, "jpg"),
    ("16 bits a pixel", sixteen_bits, "png"),
    ("animated", animated, "webp"),
    ("transparent, with black behind", cut_out, "png"),
    ("48 megapixels", lambda: large(6_928), "jpg"),
    ("200 megapixels", lambda: large(14_142), "jpg"),
)
PICTURES: Rows = (
    (
        "cut in the middle",
        picture(lambda: encoded(drawing(), "JPEG", quality=95)[:900]),
        "survived",
        "1 skipped: corrupt image .*bad",
    ),
    ("a web page named .jpg", picture(_HTML), "survived", "1 skipped: corrupt image .*bad"),
    ("EPS named .jpg", picture(lambda: encoded(drawing(), "EPS")), "survived", "1 skipped: corrupt image .*bad"),
    ("empty", picture(b""), "survived", "1 skipped: missing image .*bad"),
    ("a bomb of 900 megapixels", picture(bomb_png, "bad.png"), "survived", "1 skipped: giant image .*bad"),
    ("1 x 4000 pixels", picture(lambda: encoded(drawing(0, (1, 4000))), "bad.png"), "survived", r"n=13\b"),
    ("HEIC without its decoder", heic, "survived", "1 skipped: HEIC without pillow-heif .*bad"),
    ("none that is whole", no_good_picture, "named", "CASE|list.csv: holds no picture"),
)


# Lists


def rows(*more: str, name: str = "list.csv") -> Callable[[Place], Command]:
    """More lines of a list."""
    return lambda place: evaluating(with_good_ones(place, rows=more), place.kit / MODEL)


def json_rows(*more: str) -> Callable[[Place], Command]:
    """More lines of a .jsonl."""

    def made(place: Place) -> Command:
        folder = with_good_ones(place).parent
        lines = [json.dumps({"image": f"g{number}.png", "caption": "a red box"}) for number in range(GOOD)]
        (folder / "list.jsonl").write_text("\n".join([*lines, *more]))
        return evaluating(folder / "list.jsonl", place.kit / MODEL)

    return made


def odd_file(make: Callable[[Path], object], caption: str = "x") -> Callable[[Place], Command]:
    """A line that names something odd, `bad.png`, or has an odd caption."""

    def made(place: Place) -> Command:
        data = with_good_ones(place, rows=[f"bad.png,{caption}"])
        make(data.parent / "bad.png")
        return evaluating(data, place.kit / MODEL)

    return made


def whole_list(content: bytes | Callable[[Path], object], name: str = "list.csv") -> Callable[[Place], Command]:
    """A list that is none."""

    def made(place: Place) -> Command:
        path = with_good_ones(place).parent / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.unlink(missing_ok=True)
            content(path)
        return evaluating(path, place.kit / MODEL)

    return made


def sparse(path: Path, size: int = 10 << 30) -> None:
    """A file of many bytes that takes no place."""
    path.write_bytes(b"image,caption\n")
    os.truncate(path, size)


def no_list(place: Place) -> Command:
    """Pictures, and no list."""
    (with_good_ones(place)).unlink()
    return evaluating(place.folder / "in", place.kit / MODEL)


_LINE = r"1 skipped: bad list line .*line-00000014"
_PNG = encoded(drawing(GOOD))  # none of the good ones
LISTS: Rows = (
    ("too many cells", rows("g1.png,a dog, a cat"), "survived", _LINE),
    ("a quotation mark that is not closed", rows('g1.png,"x'), "survived", _LINE),
    ("a NUL in a caption", rows("g1.png,x\0y"), "survived", _LINE),
    ("U+2028 in a caption", odd_file(lambda path: path.write_bytes(_PNG), "x\u2028y"), "survived", r"n=13\b"),
    ("a picture that is not there", rows("gone.png,x"), "survived", "1 skipped: missing image .*gone"),
    ("a name of 5000 letters", rows("x" * 5000 + ".png,x"), "survived", "1 skipped: missing image|1 skipped: no file"),
    ("an unknown protocol, foo://", rows("foo://x/y.png,x"), "survived", "1 skipped: no file that can be read"),
    ("a device", rows("/dev/zero,x"), "survived", "1 skipped: no file that can be read"),
    ("a pipe", odd_file(os.mkfifo), "survived", "1 skipped: no file that can be read.*bad"),
    ("a loop of links", odd_file(lambda path: path.symlink_to(path)), "survived", "1 skipped: (no file|missing image)"),
    ("deep JSON in a line", json_rows("[" * 100_000), "survived", r"1 skipped: bad list line .*line-00000013"),
    ("UTF-16", whole_list("image,caption\ng1.png,x\n".encode("utf-16")), "named", "list.csv: is not UTF-8"),
    ("empty", whole_list(b""), "named", "list.csv"),
    ("no column of captions", whole_list(b"image,colour\ng1.png,x\n"), "named", "list.csv: .*caption column"),
    ("itself a device", whole_list(lambda path: path.symlink_to("/dev/zero")), "named", "list.csv: .*device or a pipe"),
    ("itself a pipe", whole_list(os.mkfifo), "named", "list.csv: .*device or a pipe"),
    ("10 GB", whole_list(sparse), "named", "list.csv: has 10,737,418,240 bytes"),
    ("pictures without a list", no_list, "named", "in: holds neither shards nor a list"),
)


# Shards


def shard(make: Callable[[], bytes], name: str = "a.tar") -> Callable[[Place], Command]:
    """A shard of own pictures."""

    def made(place: Place) -> Command:
        (place.folder / name).write_bytes(make())
        return evaluating(place.folder / name, place.kit / MODEL)

    return made


def more_members(*members: tuple[str, bytes]) -> Callable[[Place], Command]:
    """More files in a good shard."""
    return shard(lambda: tar_of([*good_members(), *members]))


def bomb_tar() -> bytes:
    """A good shard whose last file would be ten gigabytes of zeros."""
    info = tarfile.TarInfo("bomb.png")
    info.size = 9 << 30
    start = tar_of(good_members()).rstrip(b"\0")
    start += bytes(-len(start) % 512) + info.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(start) + gzip.compress(bytes(16 << 20)) * 640


def spoiled_set(spoil: Callable[[Path], object]) -> Callable[[Place], Command]:
    """Train on a reinforced set of which something is wrong."""

    def made(place: Place) -> Command:
        shutil.copytree(place.kit / SET, place.folder / SET)
        spoil(place.folder / SET)
        return training(place.folder / SET, place.folder / "out", "--reinforced")

    return made


def no_model(place: Place) -> str:
    """Nothing was trained on it."""
    return "a model was saved" if (place.folder / "out" / MODEL).exists() else ""


_SECOND = "shard-000001.tar"


def another_shard(folder: Path) -> None:
    """Change one bit of a shard."""
    content = bytearray((folder / _SECOND).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / _SECOND).write_bytes(bytes(content))


def zeros(folder: Path) -> None:
    """Fill a file with zeros, as some disks do after a power cut."""
    (folder / _SECOND).write_bytes(bytes((folder / _SECOND).stat().st_size))


def cut(path: Path) -> None:
    """Halve a file."""
    os.truncate(path, path.stat().st_size // 2)


SHARDS: Rows = (
    ("a bomb in a .tar.gz", shard(bomb_tar, "a.tar.gz"), "survived", "12 samples read; .*is broken: the archive"),
    ("cut in the middle", shard(lambda: tar_of(good_members())[:9000]), "survived", "samples read; .*is broken"),
    ("names with dots", more_members(("cat.2.jpg", _PNG), ("cat.2.txt", b"x")), "survived", r"n=13\b"),
    ("files of macOS", more_members(("._g1.png", b"mac"), ("__MACOSX/g1.png", b"mac")), "survived", r"n=12\b"),
    (
        "a blank caption",
        more_members(("bad.png", _PNG), ("bad.txt", b" \n")),
        "survived",
        "1 skipped: missing caption .*bad",
    ),
    ("a sample without its picture", more_members(("bad.txt", b"x")), "survived", "1 skipped: missing image .*bad"),
    (
        "metadata that are no JSON",
        more_members(("bad.json", b"[" * 10**5), ("bad.png", _PNG), ("bad.txt", b"x")),
        "survived",
        "1 skipped: bad metadata .*bad",
    ),
    ("a web page named .tar", shard(lambda: _HTML), "named", "a.tar is not a readable tar shard"),
    (
        "gzip in gzip",
        shard(lambda: gzip.compress(gzip.compress(tar_of(good_members()))), "a.tar.gz"),
        "named",
        "a.tar.gz is not a readable tar shard",
    ),
)
SETS: Rows = (
    ("one shard cut", spoiled_set(lambda folder: cut(folder / _SECOND)), "named", f"{_SECOND}"),
    ("one shard of another hash", spoiled_set(another_shard), "named", f"{_SECOND}"),
    ("one shard of zeros, of the same length", spoiled_set(zeros), "named", f"{_SECOND}"),
    ("one shard missing", spoiled_set(lambda folder: (folder / _SECOND).unlink()), "named", f"{_SECOND}"),
    (
        "a stray shard",
        spoiled_set(lambda folder: shutil.copy(folder / _SECOND, folder / "shard-9.tar")),
        "named",
        "shard-9.tar",
    ),
    ("a manifest that is cut", spoiled_set(lambda folder: cut(folder / "manifest.json")), "named", "manifest.json"),
    (
        "a manifest of deep JSON",
        spoiled_set(lambda folder: (folder / "manifest.json").write_text("[" * 10**5)),
        "named",
        "manifest.json",
    ),
)


# The web


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path.strip("/").partition(".")[0]
        if kind.isdigit():
            self.send_error(int(kind))
            return
        content = _HTML if kind == "html" else _PNG
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) * (2 if kind == "short" else 1)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def bad_server() -> Iterator[str]:
    """The address of a web server: `/403.png` is refused, `/short.png` cut, `/html.png` a web page, others are good."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def address(name: str) -> Callable[[Place], Command]:
    """A list with one picture of the web."""
    return lambda place: evaluating(with_good_ones(place, rows=[f"{place.server}/{name},x"]), place.kit / MODEL)


def no_package(place: Place) -> Command:
    """A shard on the web, where fsspec finds no package for it."""
    return hiding("aiohttp", evaluating(f"{place.server}/a.tar", place.kit / MODEL), place)


WEB: Rows = (
    ("403", address("403.png"), "survived", "1 skipped: web server says 403"),
    ("404", address("404.png"), "survived", "1 skipped: missing image"),
    ("500", address("500.png"), "survived", "1 skipped: web server says 500"),
    ("an answer that breaks off", address("short.png"), "survived", "1 skipped: web server's answer breaks off"),
    ("a web page instead of a picture", address("html.png"), "survived", "1 skipped: corrupt image"),
    ("nobody answers", rows("http://127.0.0.1:1/x.png,x"), "survived", "1 skipped: web server does not answer"),
    (
        "a shard, where the package that fetches it is missing",
        no_package,
        "named",
        r"a\.tar: cannot read http://.*pip install",
    ),
)


# Checkpoints


_TENSOR = "image_encoder.proj.weight"


def checkpoint(make: Callable[[Path], object], name: str = "bad.pt") -> Callable[[Place], Command]:
    """Evaluate a model from this file."""

    def made(place: Place) -> Command:
        path = place.folder / name
        shutil.copy(place.kit / MODEL, place.folder / "good.safetensors")
        make(path)
        return evaluating(place.kit / "pictures", path)

    return made


def changed_weights(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A PyTorch file of the good model with one tensor changed."""

    def made(path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        weights: dict[str, Any] = dict(load_file(path.parent / "good.safetensors"))
        weights[_TENSOR] = change(weights[_TENSOR])
        torch.save(weights, path)

    return made


def stride_0(tensor: Any) -> Any:
    """A tensor that claims a trillion numbers, and holds one."""
    return tensor.flatten()[:1].clone().expand(10**12)


def zip_bomb(path: Path, size: int = 10**9) -> None:
    """A PyTorch file of compressed zeros, so many bytes in each tensor."""
    import torch

    torch.save({"a": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(size) if "/data/" in name else content)


def ours(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """A safetensors file of the good model, with something of its settings or weights changed."""
    from safetensors.torch import load_file, save_file

    from mcliplib.checkpoints import read_header

    good = path.parent / "good.safetensors"
    header, weights = read_header(good), load_file(good)
    config = json.loads(header["config"])
    change(config, weights)
    save_file(weights, path, {**header, "config": json.dumps(config)})


def a_million_layers(config: dict[str, Any], weights: dict[str, Any]) -> None:
    """Settings that describe a huge model."""
    config["text"]["layers"] = 10**6


def not_a_number(config: dict[str, Any], weights: dict[str, Any]) -> None:
    """A tensor of NaN."""
    weights[_TENSOR] = weights[_TENSOR] * float("nan")


class _Touch:
    """Name the function that unpickling would call."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def runs_code(path: Path) -> None:
    """A pickle that makes a folder when it is opened."""
    path.write_bytes(pickle.dumps(_Touch(path.parent / "it-ran")))


def did_not_run(place: Place) -> str:
    """The pickle's code did not run."""
    return "the file's code ran" if (place.folder / "it-ran").exists() else ""


def half(path: Path) -> None:
    """The first half of a good file."""
    content = (path.parent / "good.safetensors").read_bytes()
    path.write_bytes(content[: len(content) // 2])


_SAFE = "bad.safetensors"
CHECKPOINTS: Rows = (
    ("a stride of 0 that claims terabytes", checkpoint(changed_weights(stride_0)), "named", "bad.pt: .*claims"),
    ("NaN among the weights", checkpoint(lambda path: ours(path, not_a_number), _SAFE), "named", f"{_SAFE}: .*NaN"),
    ("a zip bomb", checkpoint(zip_bomb), "named", "bad.pt: .*compressed"),
    ("a pickle that runs code", checkpoint(runs_code), "named", "bad.pt: refused"),
    ("a million layers", checkpoint(lambda path: ours(path, a_million_layers), _SAFE), "named", f"{_SAFE}: .*layers"),
    ("the first half", checkpoint(half, _SAFE), "named", f"{_SAFE}: not a whole"),
    (
        "a header that claims more than there is",
        checkpoint(lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"), _SAFE),
        "named",
        f"{_SAFE}: not a whole",
    ),
    ("a web page", checkpoint(lambda path: path.write_bytes(_HTML)), "named", "bad.pt: is a web page"),
    ("a Git LFS pointer", checkpoint(lambda path: path.write_bytes(_POINTER)), "named", "bad.pt: is a Git LFS pointer"),
    ("empty", checkpoint(Path.touch), "named", "bad.pt: .*empty"),
    ("a device", checkpoint(lambda path: path.symlink_to("/dev/zero")), "named", "bad.pt: .*device or a pipe"),
)


# Settings and plans


def config(text: str) -> Callable[[Place], Command]:
    """Train with this file of settings."""

    def made(place: Place) -> Command:
        (place.folder / "settings.yaml").write_bytes(text.encode(errors="surrogateescape"))
        return Command(
            ["train", "--config", str(place.folder / "settings.yaml"), "--output", str(place.folder / "out")]
        )

    return made


def plan(text: str, other: str = "") -> Callable[[Place], Command]:
    """Run this plan of an experiment."""

    def made(place: Place) -> Command:
        for name, content in (("a.yaml", text), ("b.yaml", other)):
            (place.folder / name).write_text(content.replace("HERE", str(place.folder)))
        return Command(["experiment", "run", str(place.folder / "a.yaml"), "--output", str(place.folder / "out/runs")])

    return made


def nothing_outside(place: Place) -> str:
    """No run and nothing beside the folder of the runs."""
    there = sorted(path.name for path in place.folder.iterdir() if not path.name.startswith("."))
    odd = [name for name in there if name not in ("a.yaml", "b.yaml", "settings.yaml", "out")]
    return f"wrote {odd[0]}" if odd else no_model(place)


_PLAN = "about: x\nbase: {}\nvariants: {one: {}}\nbudgets: [64]\nseeds: [0]\n"
_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
SETTINGS: Rows = (
    ("YAML of 60,000 levels", config("[" * 60_000), "named", "settings.yaml: is not YAML"),
    ("aliases that grow", config(_ALIASES), "named", "settings.yaml: .*aliases"),
    ("a text for a number", config("batch_size: many\n"), "named", "settings.yaml.*batch_size"),
    ("NaN for a number", config("learning_rate: .nan\n"), "named", "learning_rate"),
    ("a name that no setting has", config("batchsize: 8\n"), "named", "settings.yaml.*batchsize"),
    (
        "YAML that makes objects",
        config("a: !!python/object/apply:os.mkdir [it-ran]\n"),
        "named",
        "settings.yaml: is not YAML",
    ),
    ("a byte that is no text", config("seed: \udcff"), "named", "settings.yaml: is not YAML"),
    ("a plan that names ../", plan(_PLAN.replace("one", '"../../x"')), "named", "a.yaml.*is no name of a file"),
    (
        "plans in a circle",
        plan(_PLAN.replace("{}\nv", "HERE/b.yaml\nv"), _PLAN.replace("{}\nv", "HERE/a.yaml\nv")),
        "named",
        "a.yaml.*leads back",
    ),
    ("a plan of wrong types", plan(_PLAN.replace("[64]", "sixty")), "named", "a.yaml.*budgets"),
)


# Output


def report_to(path: str) -> Callable[[Place], Command]:
    """Write the scores there."""
    return lambda place: evaluating(
        place.kit / "pictures", place.kit / MODEL, "--output", path.replace("HERE", str(place.folder))
    )


def in_the_way(make: Callable[[Path], Command]) -> Callable[[Place], Command]:
    """A file where the folder of the output should be."""

    def made(place: Place) -> Command:
        (place.folder / "out").write_text("mine")
        return make(place.folder / "out")

    return made


def stays(place: Place) -> str:
    """The file that was in the way is as it was."""
    return "" if (place.folder / "out").read_text() == "mine" else "the file in the way was changed"


def full_disk(make: Callable[[Place], Command], bytes: int) -> Callable[[Place], Command]:
    """No file can have more bytes."""
    return lambda place: Command(make(place).arguments, largest_file=bytes)


def no_results(place: Place) -> str:
    """Neither a model nor a shard that is not whole."""
    shards = list((place.folder / "out").glob("shard-*"))
    return f"{shards[0].name} was left" if shards else no_model(place)


def others_files(place: Place) -> Command:
    """The folder of the output holds a stranger's file."""
    (place.folder / "out").mkdir()
    (place.folder / "out/diary.txt").write_text("mine")
    return reinforcing(place.kit / "pictures", place.folder / "out")


def unharmed(place: Place) -> str:
    """The stranger's file is as it was, and alone."""
    there = [path.name for path in (place.folder / "out").iterdir() if path.name != ".lock"]
    return "" if there == ["diary.txt"] else f"the folder holds {', '.join(there)}"


def _reinforce_here(place: Place) -> Command:
    return reinforcing(place.kit / "pictures", place.folder / "out")


def _train_here(place: Place) -> Command:
    return training(place.kit / SET, place.folder / "out", "--reinforced")


OUTPUT: Sequence[tuple[str, Callable[[Place], Command], Verdict, str, Callable[[Place], str]]] = (
    ("scores to a place that is read-only", report_to("/proc/scores.json"), "named", "/proc/scores.json", no_model),
    ("scores to a folder", report_to("HERE"), "named", "CASE|case-", no_model),
    (
        "a training run below /proc",
        lambda place: training(place.kit / SET, Path("/proc/run"), "--reinforced"),
        "named",
        "/proc/run",
        no_model,
    ),
    (
        "a file in the way of a run",
        in_the_way(lambda out: training(out.parent.parent / "kit" / SET, out, "--reinforced")),
        "named",
        "out",
        stays,
    ),
    ("a stranger's files in the folder", others_files, "named", "out: holds diary.txt", unharmed),
    ("a full disk while reinforcing", full_disk(_reinforce_here, 20_000), "named", "out", no_results),
    ("a full disk while training", full_disk(_train_here, 1 << 20), "named", "out", no_results),
)


def _table(kind: str, rows: Rows, check: Callable[[Place], str] = no_fault) -> list[Case]:
    return [Case(kind, name, make, expected, told, check) for name, make, expected, told in rows]


CASES: list[Case] = [
    *(
        Case("pictures", name, read_rightly(make, suffix), "survived", _RIGHT, teacher_saw_it_right)
        for name, make, suffix in _TWINS
    ),
    *_table("pictures", PICTURES),
    *_table("lists", LISTS),
    *_table("shards", SHARDS),
    *_table("sets", SETS, no_model),
    *_table("web", WEB),
    *_table("checkpoints", CHECKPOINTS, did_not_run),
    *_table("settings", SETTINGS, nothing_outside),
    *(Case("output", name, make, expected, told, check) for name, make, expected, told, check in OUTPUT),
]
