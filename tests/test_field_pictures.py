"""Faults met in the field with picture files, folders and shared machines: one heading a kind.

The inputs are made here: what phones, servers, archives and clones make of a folder of faces.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reading import pages
from toys import ENGINE

from emobench.data.datasets.affectnet import AffectNet
from emobench.data.datasets.folder import Folder
from emobench.data.pack import published, writable
from emobench.data.readers import files, images
from emobench.data.readers.images import read_face
from emobench.data.readers.labels import Meaning
from emobench.data.readers.tables import Inside
from emobench.data.readers.tree import scan
from emobench.errors import DatasetError, RowError, from_text, shown, to_text
from emobench.files import replacing
from emobench.runner.store import load_board

CLASSES = ("happy", "sad", "neutral")


def face(seed: int, size: int = 48) -> Image.Image:
    """Broad shapes, never symmetric, as faces under a lamp are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def tree(top: Path, each: int = 12, suffix: str = "png", classes: tuple[str, ...] = CLASSES) -> Path:
    """A folder a class with `each` faces."""
    for k, name in enumerate(classes):
        (top / name).mkdir(parents=True)
        for i in range(each):
            face(100 * k + i).save(top / name / f"{name}_{i:02}.{suffix}")
    return top


def folder(place: Path, cache: Path, **arguments: object) -> Folder:
    return Folder(dataset=place.name, folder=place, cache=cache, **arguments)  # type: ignore[arg-type]


def jpeg(picture: Image.Image, exif: bytes = b"", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, **({"exif": exif} if exif else {}), **options)  # type: ignore[arg-type]
    return file.getvalue()


def report(emobench: Callable[..., int], capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and all that the command said."""
    capsys.readouterr()
    code = emobench(*arguments)
    said = capsys.readouterr()
    return code, said.out + said.err


# ---- Metadata never costs a face, and no decoder's exception ends a run ---------------------------------------------


def block(*tags: tuple[int, int, int, bytes], after: bytes = b"", order: str = "<") -> bytes:
    """An EXIF block of tags (number, type, count, four bytes)."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, len(tags)) + body + b"\0\0\0\0" + after


SIX = (0x0112, 3, 1, struct.pack("<HH", 6, 0))  # to be turned by 90 degrees
EXIFS = {  # the block, and whether it says that the picture is turned
    "plain": (block(SIX), True),
    "big_endian": (block((0x0112, 3, 1, struct.pack(">HH", 6, 0)), order=">"), True),
    "software_as_fraction": (block(SIX, (0x0131, 5, 1, struct.pack("<I", 38)), after=struct.pack("<II", 1, 1)), True),
    "exposure_minus_one_over_zero": (block(SIX, (0x9204, 10, 1, struct.pack("<I", 38)), after=b"\xff" * 8), True),
    "software_as_number": (block(SIX, (0x0131, 4, 1, struct.pack("<I", 7))), True),
    "unit_as_text": (block(SIX, (0x0128, 2, 4, b"abc\0")), True),
    "gps_beyond_the_block": (block(SIX, (0x8825, 4, 1, struct.pack("<I", 0xFFFFFF))), True),
    "exif_pointer_far": (block(SIX, (0x8769, 4, 1, struct.pack("<I", 0x7FFFFFFF))), True),
    "doubled_header": (b"Exif\0\0" + block(SIX), True),
    "empty": (b"Exif\0\0", False),
    "orientation_as_text": (block((0x0112, 2, 2, b"6\0\0\0")), False),
    "orientation_99": (block((0x0112, 3, 1, struct.pack("<HH", 99, 0))), False),
    "cut": (block(SIX)[:19], False),
}


@pytest.mark.parametrize("name", EXIFS)
def test_orientation_alone_is_read(tmp_path: Path, name: str) -> None:
    exif, turned = EXIFS[name]
    stored = face(1, 40).resize((40, 24))
    (tmp_path / "x.jpg").write_bytes(jpeg(stored, exif))
    plain = np.asarray(Image.open(io.BytesIO(jpeg(stored))))
    np.testing.assert_array_equal(read_face(tmp_path / "x.jpg")[0], np.rot90(plain, -1) if turned else plain)
    np.testing.assert_array_equal(read_face(tmp_path / "x.jpg", upright=False)[0], plain)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("said", range(1, 9))
def test_every_orientation_of_every_format(tmp_path: Path, form: str, said: int) -> None:
    stored = face(2, 40).resize((40, 24)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = said
    stored.save(tmp_path / "x", form, exif=exif, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
    stored.save(tmp_path / "plain", form)
    pixels = read_face(tmp_path / "plain")[0].astype(int)
    upright = {  # EXIF 2.32, table 6: what lies at the top and at the left of the stored picture
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.T, 6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[said]  # fmt: skip
    np.testing.assert_array_equal(read_face(tmp_path / "x")[0], upright)


def test_changed_bytes_of_exif_cost_no_face(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131], exif[0x011A] = 1, "a camera", (72, 1)
    exif.get_ifd(0x8769)[0x9204] = (1, 3)
    whole, random = jpeg(face(3)), np.random.default_rng(0)
    pixels, intact = np.asarray(Image.open(io.BytesIO(whole))), exif.tobytes()
    for number in range(2000):
        changed = bytearray(intact)
        for _ in range(1 + number % 3):
            changed[random.integers(6, len(changed))] = random.integers(256)
        (tmp_path / "x.jpg").write_bytes(jpeg(face(3), bytes(changed)))
        np.testing.assert_array_equal(np.sort(read_face(tmp_path / "x.jpg"), None), np.sort(pixels, None))


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content) if crc is None else crc)
    )


def test_profiles_comments_and_texts_cost_no_face(tmp_path: Path) -> None:
    file = io.BytesIO()
    face(4).save(file, "PNG")
    whole = file.getvalue()
    for number, extra in enumerate(
        (
            chunk(b"tEXt", b"no separator"),
            chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(100_000_000))),
            chunk(b"iCCP", b"profile\0\0not compressed"),
            chunk(b"tEXt", b"comment\0hello", crc=1),
            chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        )
    ):
        path = tmp_path / f"{number}.png"
        path.write_bytes(whole[:33] + extra + whole[33:])  # after the header
        np.testing.assert_array_equal(read_face(path)[0], np.asarray(face(4)))
    for number, extra in enumerate(
        (b"\xff\xfe\x00\x06abcd", b"\xff\xe2\x00\x10ICC_PROFILE\0\xff\x00", b"\xff\xed\x00\x12Photoshop 3.0\0\xff\xff")
    ):
        path = tmp_path / f"{number}.jpg"
        plain = jpeg(face(4))
        path.write_bytes(plain[:2] + extra + plain[2:])
        np.testing.assert_array_equal(read_face(path)[0], np.asarray(Image.open(io.BytesIO(plain))))


def breaking(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the decoder of JPEG files raises; PNGs are decoded."""
    decode = images.Image.open

    def broken(file: io.BytesIO, **options: object) -> Image.Image:
        if file.getvalue().startswith(b"\xff\xd8"):
            raise error("of a decoder")
        return decode(file, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(images.Image, "open", broken)


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, MemoryError, KeyError, RecursionError, Exception])
def test_any_exception_of_a_decoder_excludes_that_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    place = tree(tmp_path / "faces")
    (place / "sad" / "sad_05.png").write_bytes(jpeg(face(5)))
    breaking(error, monkeypatch)
    with pytest.raises(RowError, match=r"sad_05.png: not an intact image \("):
        read_face(place / "sad" / "sad_05.png")
    data = folder(place, tmp_path / "cache", max_bad=0.1).plan()
    assert list(data.audit["excluded_faces"]) == ["sad/sad_05.png"]


def test_no_exception_of_a_decoder_ends_a_command(
    emobench: Callable[..., int],
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tree(tmp_path / "faces")
    (place / "sad" / "sad_05.png").write_bytes(jpeg(face(5)))
    breaking(ZeroDivisionError, monkeypatch)
    run = ["predict", "best:tiny/synthetic-plain", place / "sad", "--results", tiny_results, "--format", "csv"]
    code, said = report(emobench, capsys, *run)
    assert code == 1
    assert said.count("sad_") == 11 + 1  # eleven are answered, one is named
    assert "sad_05.png: not an intact image (of a decoder)" in said
    code, said = report(emobench, capsys, "data", "check", "folder:faces", "--data", tmp_path)
    assert code == 1
    assert "- 1: not an intact image (of a decoder)" in said
    suite = tmp_path / "s.toml"
    suite.write_text('[data."folder:faces"]\nmax_bad = 0.1\n[model.resnet18]\nwidth = 0.0625\n')
    code, said = report(emobench, capsys, "bench", suite, "--dry-run", "--data", tmp_path, "--results", tmp_path / "r")
    assert code == 0
    assert "1 of 36 faces cannot be read and are left out, such as sad/sad_05.png" in said


# ---- File names are bytes -------------------------------------------------------------------------------------------

LATIN1 = os.fsdecode(b"caf\xe9_0.png")


def test_a_name_that_is_no_utf8_is_written_and_found_again() -> None:
    for name in (LATIN1, "café.png", r"a\xe9.png", r"\x5c", os.fsdecode(b"\xff\xfe"), "plain.png"):
        text = to_text(name)
        text.encode()  # it can be written
        assert from_text(text) == name
    assert to_text(LATIN1) == r"caf\xe9_0.png" != to_text(r"caf\xe9_0.png")
    assert shown(f"/a/{LATIN1}") == r"/a/caf\xe9_0.png"
    assert str(DatasetError(f"{LATIN1}: broken")) == r"caf\xe9_0.png: broken"


def test_latin1_names_in_every_format(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tree(tmp_path / "faces")
    for number in range(3):
        face(900 + number).save(place / "happy" / os.fsdecode(b"caf\xe9_%d.png" % number))
    (place / "happy" / os.fsdecode(b"broken\xe9.png")).write_bytes(b"")
    data = folder(place, tmp_path / "cache", max_bad=0.1)
    data.prepare()
    assert data.audit["faces"] == 40
    assert list(data.audit["excluded_faces"]) == [r"happy/broken\xe9.png"]
    row = data.faces.index[data.faces["id"] == r"happy/caf\xe9_1.png"][0]
    np.testing.assert_array_equal(data.images[row, 0], np.asarray(face(901)))
    names = folder(place, tmp_path / "cache", max_bad=0.1).plan(pixels=False)
    assert list(names.audit["excluded_faces"]) == [r"happy/broken\xe9.png"]
    check = ["data", "check", "folder:faces", "--data", tmp_path, "--set", "max_bad=0.1"]
    for out in ("audit.json", "audit.md"):
        assert emobench(*check, "--out", tmp_path / out) == 0
    assert json.loads((tmp_path / "audit.json").read_text())["excluded_faces"] == data.audit["excluded_faces"]
    assert r"broken\\xe9.png" in (tmp_path / "audit.md").read_text()  # a backslash in Markdown
    run = ["predict", "best:tiny/synthetic-plain", place / "happy", "--results", tiny_results]
    code, said = report(emobench, capsys, *run)
    assert code == 1
    assert r"happy/caf\xe9_0.png" in said
    assert r"happy/broken\xe9.png: not an intact image (0 bytes)" in said
    for form in ("csv", "json"):
        assert emobench(*run, "--format", form, "--out", tmp_path / f"out.{form}") == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["file"] for row in rows] == [row["file"] for row in json.loads((tmp_path / "out.json").read_text())]
    assert rf"{place}/happy/caf\xe9_2.png" in [row["file"] for row in rows]


def test_a_suite_on_latin1_names_has_a_board(emobench: Callable[..., int], tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"donn\xe9es")
    place = tree(root / "faces")
    (place / "happy" / "happy_03.png").rename(place / "happy" / LATIN1)
    suite = tmp_path / "s.toml"
    suite.write_text('[data."folder:faces"]\nsize = 32\n[model.resnet18]\nwidth = 0.0625\nbatch = 8\nepochs = 1\n')
    assert emobench("bench", suite, "--data", root, "--results", tmp_path / "results") == 0
    assert "resnet18" in pages(tmp_path / "results/s")
    table = pd.read_parquet(next((tmp_path / "results/s/cells").glob("*/predictions.parquet")))
    assert len(table) > 0


# ---- A picture is a regular file of bounded size --------------------------------------------------------------------


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(files.MOST + 1)
    (tmp_path / "folder.png").mkdir()
    for name, found in {
        "zero": "a link to a device, no regular file",
        "loop": "a link that leads back to itself",
        "nowhere": "a link to gone.png, which is not there",
        "pipe": r"a FIFO \(a named pipe\), no regular file",
        "large": "256 MiB, more than the 256 MiB that a picture may have",
        "folder": "a folder, no regular file",
    }.items():
        with pytest.raises(RowError, match=rf"{name}.png: {found}"):
            read_face(tmp_path / f"{name}.png")
    (tmp_path / "whole.png").write_bytes(b"")
    face(1).save(tmp_path / "whole.png")
    (tmp_path / "link.png").symlink_to("whole.png")
    np.testing.assert_array_equal(read_face(tmp_path / "link.png"), read_face(tmp_path / "whole.png"))


BOUNDED = """
import resource, sys
from pathlib import Path
from emobench.data.datasets.folder import Folder
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
place = Path(sys.argv[1])
for pixels in (False, True):
    data = Folder(dataset="faces", folder=place, cache=place.parent / "cache", max_bad=0.2).plan(pixels=pixels)
    print(*sorted(data.audit["excluded_faces"]))
"""


@pytest.mark.slow
def test_devices_pipes_and_huge_files_cost_neither_memory_nor_the_run(tmp_path: Path) -> None:
    place = tree(tmp_path / "faces")
    (place / "sad" / "z.png").symlink_to("/dev/zero")
    (place / "sad" / "y.png").symlink_to("y.png")
    os.mkfifo(place / "sad" / "x.png")
    os.mkfifo(place / "sad" / "a pipe without a suffix")
    with open(place / "sad" / "w.png", "wb") as file:
        file.truncate(8 * 2**30)
    said = subprocess.run([sys.executable, "-c", BOUNDED, place], capture_output=True, text=True, timeout=120)
    assert said.stdout.splitlines() == ["sad/w.png sad/x.png sad/y.png sad/z.png"] * 2, said.stderr


def test_links_of_the_hub_are_read_in_csv_layouts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    snapshot = tmp_path / "copy/datasets--someone--faces/snapshots/abc/images"
    elsewhere, cache = tmp_path / "elsewhere", tmp_path / "hf/hub/datasets--a--b/blobs"
    blobs = tmp_path / "copy/datasets--someone--faces/blobs"
    root = tmp_path / "root"
    for place in (snapshot, blobs, elsewhere, cache, root / "other"):
        place.mkdir(parents=True)
        face(1).save(place / "0123.png")
    (snapshot / "a.png").symlink_to("../../../blobs/0123.png")
    (snapshot / "b.png").symlink_to(elsewhere / "0123.png")
    (snapshot / "c.png").symlink_to(cache / "0123.png")
    (snapshot / "d.png").symlink_to(root / "other/0123.png")
    inside = Inside(snapshot, root)
    table = tmp_path / "t.csv"
    assert [inside(table, 2, "path", name) for name in ("a.png", "c.png", "d.png")] == ["a.png", "c.png", "d.png"]
    with pytest.raises(RowError, match="t.csv, row 5, path: 'b.png' is a link out of the folder"):
        inside(table, 5, "path", "b.png")


# ---- Pictures by content, not by suffix; what is left out is said ---------------------------------------------------


def test_pictures_are_known_by_their_content(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tree(tmp_path / "faces", suffix="jpg")
    others = ["save.jfif", "save.jpe", "0123456789abcdef", "web.jpg?w=200", "tw.jpg_large", "X.JPG"]
    for number, name in enumerate(others):
        (place / "sad" / name).write_bytes(jpeg(face(500 + number)))
    (place / "sad" / "notes.txt").write_text("BM is no picture, and RIFF neither")
    (place / "sad" / "song.mp3").write_bytes(b"ID3" + bytes(50))
    (place / "sad" / "README").write_text("faces")
    (place / "sad" / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(50))
    (place / "sad" / ".cover.jpg").write_bytes(jpeg(face(1)))
    data = folder(place, tmp_path / "cache").plan()
    assert data.audit["faces"] == 36 + len(others)
    assert {f"sad/{name}" for name in others} < set(data.faces["id"])
    assert data.notes[0] == (
        "5 files that are no faces are left out: 1 .mp3, 1 .mp4, 1 .txt, 1 hidden, 1 without a suffix"
    )
    run = ["predict", "best:tiny/synthetic-plain", place / "sad", "--results", tiny_results, "--format", "csv"]
    code, said = report(emobench, capsys, *run)
    assert code == 0
    assert said.count(str(place)) == 12 + len(others)
    assert data.notes[0] in said
    code, said = report(emobench, capsys, *run[:2], tmp_path / "no", "--results", tiny_results)
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "a.txt").write_text("x")
    code, said = report(emobench, capsys, *run[:2], tmp_path / "no", "--results", tiny_results)
    assert code == 2
    assert "no picture in" in said
    assert "1 .txt" in said


def test_clutter_of_servers_is_ignored_and_counted(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tree(tmp_path / "faces", suffix="jpg")
    for name in CLASSES:
        for path in sorted((place / name).glob("*.jpg")):
            below = place / name / "@eaDir" / path.name
            below.mkdir(parents=True)
            face(7, 24).save(below / "SYNOPHOTO_THUMB_M.jpg")
    for name in ("@eaDir", "#recycle", "__MACOSX", ".thumbnails"):
        (place / name).mkdir()
        face(8).save(place / name / "old.jpg")
    (place / "sad" / "._sad_01.jpg").write_bytes(b"\0\5\x16\7")
    data = folder(place, tmp_path / "cache").plan()
    assert data.audit["faces"] == 36
    said = "thumbnails, trash and the like are ignored: 1 #recycle, 1 ._*, 1 .thumbnails, 4 @eaDir, 1 __MACOSX"
    assert data.notes[0] == said
    run = ["predict", "best:tiny/synthetic-plain", place, "--results", tiny_results, "--format", "csv"]
    code, printed = report(emobench, capsys, *run)
    assert code == 0
    assert printed.count(".jpg,") == 36
    assert said in printed


def test_heic_without_its_decoder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._reads_heif.cache_clear()
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(RowError, match=r"IMG_0001.HEIC: a HEIC picture.*`pip install 'emobench\[heif\]'`"):
        read_face(path)
    images._reads_heif.cache_clear()


def test_heic_is_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    images._reads_heif.cache_clear()
    pillow_heif.register_heif_opener()
    picture = face(9, 64).resize((64, 40)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a photo", "HEIF", quality=95, exif=exif.tobytes())
    assert images.is_picture(tmp_path / "a photo")
    found = read_face(tmp_path / "a photo")
    turned = np.rot90(np.asarray(picture), -1).transpose(2, 0, 1)
    assert found.shape == (3, 64, 40)
    assert np.abs(found.astype(int) - turned).mean() < 4


# ---- The audit stands when it is needed most ------------------------------------------------------------------------


def test_a_dataset_of_pointers_has_a_report(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, name in enumerate(CLASSES):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(12):
            path = tmp_path / "faces" / name / f"{i}.png"
            if i < 8:
                path.write_text(
                    f"version https://git-lfs.github.com/spec/v1\noid sha256:{i + 100 * k:064x}\nsize 5120\n"
                )
            elif i < 10:
                path.symlink_to(f"../../.git/annex/objects/a/b/SHA256E-s{i}--{i + k:064x}.png/SHA256E.png")
            else:
                path.write_text(f"/annex/objects/SHA256E-s5120--{i + 100 * k:064x}.png\n")
    for more in ([], ["--names-only"]):
        code, said = report(emobench, capsys, "data", "check", "folder:faces", "--root", tmp_path, *more)
        assert code == 1
        assert "| cannot be read, excluded | 36 |" in said
        assert (
            "- 24: a pointer of git-lfs, not the file itself. Fetch the files: \\`git lfs pull\\` in the clone." in said
        )
        assert "- 6: a pointer of git-annex, not the file itself." in said
        assert "- 6: a link of git-annex whose content is not here." in said
        assert "No split, so nothing can be trained" in said
    with pytest.raises(DatasetError, match="36 of 36 faces cannot be read, more than max_bad allows"):
        folder(tmp_path / "faces", tmp_path / "cache").plan()
    with pytest.raises(DatasetError, match="none of 36 faces can be read, such as happy/0.png: a pointer of git-lfs"):
        folder(tmp_path / "faces", tmp_path / "cache", max_bad=1.0).plan()
    (tmp_path / "fer2013").mkdir()
    (tmp_path / "fer2013" / "fer2013.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    code, said = report(emobench, capsys, "data", "check", "fer2013", "--root", tmp_path)
    assert code == 2
    assert "fer2013.csv: a pointer of git-lfs, not the file itself. Fetch the files: `git lfs pull`" in said


def test_a_dataset_of_which_too_little_is_left_has_a_report(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tree(tmp_path / "faces")
    for path in sorted(place.rglob("*.png"))[2:]:
        path.write_bytes(path.read_bytes()[:60])
    code, said = report(emobench, capsys, "data", "check", "folder:faces", "--root", tmp_path)
    assert code == 1
    assert "| cannot be read, excluded | 34 |" in said
    assert "- 34: not an intact image (" in said
    assert "34 faces cannot be read: more than max_bad = 0.01 allows" in said
    assert "No split, so nothing can be trained:" in said


def test_backslashes_and_blanks_in_paths_of_tables(tmp_path: Path) -> None:
    for table, n in (("training.csv", 40), ("validation.csv", 16)):
        rows = []
        for i in range(n):
            name = f"{i % 3 + 1}/{table[:2]}{i:03}.png"
            path = tmp_path / "affectnet" / "Manually_Annotated_Images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            face(i + 1000 * (n == 16), 64).save(path)
            rows.append([name.replace("/", "\\") + " " * (i % 2), 0, 0, 64, 64, "1;1", i % 8, 0.1, 0.1])
        header = (
            "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
        )
        with open(tmp_path / "affectnet" / table, "w", newline="") as file:
            file.write(header + "\n")
            csv.writer(file).writerows(rows)
    data = AffectNet(folder=tmp_path / "affectnet", cache=tmp_path / "cache").plan()
    assert (data.audit["faces"], data.audit["excluded"]) == (56, 0)
    assert data.faces["source"][1] == "Manually_Annotated_Images/2/tr001.png"
    inside = Inside(tmp_path)
    for name in (r"..\x.png", r"a\..\..\x.png", "\\\\server\\x.png", r"C:\x.png", " /etc/passwd"):
        with pytest.raises(RowError, match="leads out of the folder|the absolute path"):
            inside(tmp_path / "t.csv", 2, "path", name)
    (tmp_path / r"a\b.png ").touch()  # the name of a file that is there counts
    assert inside(tmp_path / "t.csv", 2, "path", r"a\b.png ") == r"a\b.png "
    assert inside(tmp_path / "t.csv", 2, "path", r" a\c.png") == "a/c.png"


# ---- What is published follows the umask; every path is expanded; errors of permission name the path -----------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "file", "directory"), [(0o002, 0o664, 0o775), (0o027, 0o640, 0o750)])
def test_what_is_published_follows_the_umask(tmp_path: Path, mask: int, file: int, directory: int) -> None:
    import torch
    from safetensors.torch import save_file

    with umask(mask):
        data = folder(tree(tmp_path / "faces"), tmp_path / "cache")
        data.prepare()
        with replacing(tmp_path / "cache" / "w.safetensors") as temporary:
            save_file({"a": torch.zeros(3)}, temporary)
        with published(tmp_path / "cache" / "plans" / "x") as scratch:
            (scratch / "y").touch()
    for path in (tmp_path / "cache").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (directory if path.is_dir() else file), (path, oct(mode))


@pytest.mark.slow
def test_weights_and_records_of_a_cell_follow_the_umask(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "here.py").write_text(ENGINE)  # cells run in the process whose mask it is
    one = ("--set", "model.resnet18.epochs=1", "--engine", f"{tmp_path / 'here.py'}:Here")
    with umask(0o002):
        assert emobench("bench", tiny, *one, "--results", tmp_path / "results") == 0
    for path in (tmp_path / "results").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o775 if path.is_dir() else 0o664), (path, oct(mode))


def test_a_tilde_is_expanded_in_every_option_and_variable(
    emobench: Callable[..., int],
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    tree(home / "data" / "faces")
    (home / "results").symlink_to(tiny_results)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EMOBENCH_CACHE", "~/cache")
    monkeypatch.setenv("EMOBENCH_DATA", "~/data")
    monkeypatch.setenv("EMOBENCH_WEIGHTS", "~/weights")
    monkeypatch.chdir(tmp_path)
    assert emobench("data", "check", "folder:faces", "--out", "~/audit.md") == 0
    assert (home / "audit.md").is_file()
    assert (home / "cache" / "plans").is_dir()
    assert emobench("data", "check", "folder:faces", "--data=~/data", "--out=~/two.json") == 0
    assert emobench("data", "show", "folder:faces", "--out=~/faces.png") == 0
    assert (home / "faces.png").is_file()
    picture = "~/data/faces/sad/sad_01.png"
    run = ["predict", "best:tiny/synthetic-plain", picture, "--results=~/results", "--format", "csv", "--out=~/out.csv"]
    assert emobench(*run) == 0
    assert "sad_01.png" in (home / "out.csv").read_text()
    code, said = report(emobench, capsys, "doctor", "--results=~/results")
    assert code == 0
    assert f"data root {home / 'data'}" in said
    assert f"{home}/weights/" in said
    data = Folder(dataset="faces", folder=Path("~/data/faces"), cache=Path("~/other")).plan()
    assert data.cache == home / "other"
    assert not list(tmp_path.glob("~*"))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    one, two = tree(tmp_path / "faces"), tree(tmp_path / "faces2")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    (one / "sad").chmod(0)
    (two / "sad" / "sad_00.png").chmod(0)
    try:
        with as_nobody():
            with pytest.raises(
                DatasetError, match=r"faces/sad: this folder may not be read \(Permission denied\)\. Give"
            ):
                scan(one, None, Meaning({}, []), one)
            with pytest.raises(RowError, match=r"sad_00.png: may not be read \(Permission denied\)"):
                read_face(two / "sad" / "sad_00.png")
            data = folder(two, cache, max_bad=0.1).plan()
            assert list(data.audit["excluded_faces"]) == ["sad/sad_00.png"]
            (shut := cache / "shut").mkdir(mode=0o500)
            with pytest.raises(DatasetError, match=r"cannot write .*shut.* \(Permission denied\)\. Ask its owner"):
                folder(two, shut, max_bad=0.1).plan()
        (two / "sad" / "sad_00.png").chmod(0o644)
        with as_nobody():  # seen again when it may be read, though its size and time are the same
            assert folder(two, cache, max_bad=0.1).plan().audit["excluded"] == 0
    finally:
        (one / "sad").chmod(0o755)


def test_a_full_disk_and_a_missing_right_have_their_own_advice(tmp_path: Path) -> None:
    import errno

    for number, said in (
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "Ask its owner"),
        (errno.EROFS, "Make it writable"),
    ):
        with pytest.raises(DatasetError, match=said), writable(tmp_path):
            raise OSError(number, os.strerror(number), str(tmp_path / "here"))


# ---- Copies made from a face belong to it ---------------------------------------------------------------------------


def made_from(one: Image.Image) -> dict[str, Image.Image]:
    """What people make of a face before anybody splits them."""
    return {
        "flip": one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turned": one.rotate(10),
        "both": one.rotate(-7, Image.Resampling.BILINEAR).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "bright": one.point(lambda value: min(255, int(value * 1.3))),
        "dark": one.point(lambda value: int(value * 0.6)),
    }


def test_drawn_splits_keep_a_face_and_its_copies_together(tmp_path: Path) -> None:
    place = tree(tmp_path / "faces", each=20)
    for path in sorted(place.rglob("*.png")):
        for how, picture in made_from(Image.open(path)).items():
            picture.save(path.with_name(f"{path.stem}_{how}.png"))
    data = folder(place, tmp_path / "cache").plan()
    assert data.audit["faces"] == 60 * 6
    assert data.audit["near_groups"] == 60
    assert data.audit["near_groups_across_splits"] == 0
    assert data.audit["test_faces_copied_in_training"] == 0
    original = data.faces["id"].str.extract(r"(\w+?_\d+)")[0]
    assert (data.faces.groupby(original)["split"].nunique() == 1).all()
    assert (data.faces["split"] == "test").sum() == 36
    again = folder(place, tmp_path / "other", size=24).plan()  # at whatever size faces are served
    assert again.faces.equals(data.faces)
    assert again.fingerprint == data.fingerprint


def test_copies_in_given_splits_are_counted(tmp_path: Path) -> None:
    for k, (split, each) in enumerate((("train", 14), ("val", 6), ("test", 6))):
        for number, name in enumerate(CLASSES):
            (tmp_path / "faces" / split / name).mkdir(parents=True)
            for i in range(each):
                face(1000 * k + 100 * number + i).save(tmp_path / "faces" / split / name / f"{i}.png")
    for how, picture in made_from(face(3)).items():  # of train/happy/3.png
        picture.save(tmp_path / "faces" / "test" / "happy" / f"{how}.png")
    face(3).save(tmp_path / "faces" / "test" / "sad" / "same.png")
    data = folder(tmp_path / "faces", tmp_path / "cache").plan()
    assert data.audit["test_faces_seen_in_training"] == 1
    assert data.audit["test_faces_copied_in_training"] == 6
    assert (data.audit["near_groups"], data.audit["near_groups_across_splits"]) == (1, 1)
    assert data.audit["near_groups_with_contradicting_labels"] == 1
    assert data.leaked().sum() == 1  # pixel-equal ones, as before
    assert data.copied().sum() == 6


def test_a_board_says_the_accuracy_without_copied_faces(emobench: Callable[..., int], tmp_path: Path) -> None:
    for k, (split, each) in enumerate((("train", 14), ("val", 6), ("test", 6))):
        for number, name in enumerate(CLASSES):
            (tmp_path / "faces" / split / name).mkdir(parents=True)
            for i in range(each):
                face(1000 * k + 100 * number + i).save(tmp_path / "faces" / split / name / f"{i}.png")
    for how, picture in made_from(face(3)).items():
        picture.save(tmp_path / "faces" / "test" / "happy" / f"{how}.png")
    suite = tmp_path / "s.toml"
    suite.write_text('[data."folder:faces"]\nsize = 32\n[model.resnet18]\nwidth = 0.0625\nbatch = 8\nepochs = 1\n')
    assert emobench("bench", suite, "--data", tmp_path, "--results", tmp_path / "results") == 0
    numbers = pd.read_csv(tmp_path / "results/s/metrics.csv")
    row = numbers[(numbers["metric"] == "accuracy_distinct") & (numbers["model"] == "resnet18")].iloc[0]
    (cell,) = (each for each in load_board(tmp_path / "results", "s") if each.control is None)
    assert cell.folder is not None
    raw = pd.read_parquet(cell.folder / "predictions.parquet")
    rest = raw[~raw["copied"]]
    assert (len(raw), len(rest), row["n"]) == (23, 18, 18)
    assert row["value"] == pytest.approx((rest["prediction"] == rest["label"]).mean())
    assert not (numbers["metric"] == "accuracy_unleaked").any()  # none is equal


def test_drawn_faces_are_not_taken_for_copies_of_other_people() -> None:
    from emobench.data.copies import copy_groups
    from emobench.data.datasets.synthetic import Synthetic
    from emobench.data.pack import look

    data = Synthetic(size=48, variant="plain", train=800, val=80, test=80)
    data.prepare()
    groups = copy_groups(np.stack([look(np.asarray(each)) for each in data.images]))
    people = data.faces["subject"].groupby(groups).nunique()
    assert (people == 1).all()
    assert len(people) > 700  # of 960 faces of 96 people


# ---- Search among many look-alikes stays bounded --------------------------------------------------------------------


FRAMES = """
import time
import numpy as np
from emobench.data.copies import copy_groups

random = np.random.default_rng(0)
scene = np.kron(random.integers(40, 200, (6, 6)), np.ones((8, 8), int))
frames = np.clip(scene + random.integers(-1, 2, (20_000, 48, 48)), 0, 255).astype(np.uint8)
began = time.process_time()
groups = copy_groups(frames)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(set(groups)), time.process_time() - began, peak / 2**20)
"""


@pytest.mark.slow
def test_many_frames_of_one_scene_are_one_group_in_bounded_time_and_memory() -> None:
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", FRAMES], capture_output=True, text=True, check=True, env=one)
    groups, seconds, gigabytes = said.stdout.split()
    assert int(groups) == 1
    assert float(seconds) < 60  # of 4.5 million pairs, 3,000 took 39
    assert float(gigabytes) < 1


def test_a_dataset_of_one_scene_says_why_it_cannot_be_split(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(30):
            noise = random.integers(-1, 2, (48, 48))
            frame = np.clip(np.asarray(face(5)).astype(int) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(frame).save(tmp_path / "faces" / name / f"{i}.png")
    code, said = report(emobench, capsys, "data", "check", "folder:faces", "--data", tmp_path)
    assert code == 1
    assert "(kept) | 1 |" in said
    assert "60 of the faces are copies of each other, or frames of one scene" in said


# ---- Faces of mixed sizes and shapes are counted --------------------------------------------------------------------


def test_sizes_and_shapes_are_counted(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tree(tmp_path / "faces")
    _, said = report(emobench, capsys, "data", "check", "folder:faces", "--data", tmp_path)
    assert "All faces have 48 x 48 px." in said
    face(50).resize((120, 90)).save(place / "sad" / "wide.png")
    face(51).resize((30, 31)).save(place / "sad" / "small.png")
    data = folder(place, tmp_path / "cache").plan()
    assert data.audit["sizes"] == {"width": [30, 120], "height": [31, 90], "different": 3, "not_square": 2}
    _, said = report(emobench, capsys, "data", "check", "folder:faces", "--data", tmp_path)
    assert "Faces have 3 different sizes, from 30 to 120 px wide and from 31 to 90 px high; 2 are not square." in said
