"""Pictures without their metadata: only the orientation is read, so that no broken tag, profile or comment costs one.

What a picture needs to be decoded stays byte by byte. A file that does not follow its format is left as it is from
there on: the decoder says what is wrong with it.
"""

from __future__ import annotations

import re
import struct
import zlib

_ORIENTATION = 0x0112  # TIFF 6.0, section 8; EXIF 2.32, section 4.6.4
_SHORT, _LONG = 3, 4  # types of a tag
_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])[\"<]")
_MOST_TEXT = 2**20  # bytes that a compressed text of a PNG may unpack to

# Tags without which a TIFF is not decoded, or is decoded otherwise: TIFF 6.0, appendix A.
_TIFF_TAGS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293, 301, 317}
    | {318, 319, 320, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 347}
    | {512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)


def bare(data: bytes) -> tuple[bytes, int]:
    """A picture's bytes without metadata, and its orientation by EXIF (else XMP), 1 to 8; 1: upright, or not said.

    JPEG, PNG and TIFF are understood. Others come back as they are, with 1.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff(data), orientation(data)
    return data, 1


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation in an EXIF block, else in an XMP packet; 1 where none is said that makes sense."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is not None:
        for tag, kind, _, value in _entries(exif, order)[1]:
            if tag == _ORIENTATION:
                number = struct.unpack(order + ("H" if kind == _SHORT else "I"), value[: 2 if kind == _SHORT else 4])[0]
                return int(number) if kind in (_SHORT, _LONG) and 1 <= number <= 8 else 1
    said = _XMP.search(xmp)
    return int(said[1]) if said else 1


def _entries(tiff: bytes, order: str) -> tuple[int, list[tuple[int, int, int, bytes]]]:
    """Where the first directory of a TIFF begins, and its whole entries: tag, type, count, and four bytes."""
    if len(tiff) < 8:
        return 0, []
    (start,) = struct.unpack(order + "I", tiff[4:8])
    if start < 8 or start + 2 > len(tiff):
        return start, []
    (n,) = struct.unpack(order + "H", tiff[start : start + 2])
    there = min(n, (len(tiff) - start - 2) // 12)
    return start, [struct.unpack_from(order + "HHI4s", tiff, start + 2 + 12 * k) for k in range(there)]


def _jpeg(data: bytes) -> tuple[bytes, int]:
    """ITU T.81, annex B.1.1: segments up to the first scan; of the applications' only JFIF's and Adobe's are needed."""
    kept, exif, xmp, at = [data[:2]], b"", b"", 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill, or a marker without a length
            step = 1 if marker == 0xFF else 2
            at += step
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if marker == 0xDA or length < 2 or end > len(data):
            break
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            exif += body[6:] if exif else body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/"):
            xmp += body
        needed = body.startswith(b"JFIF\0") if marker == 0xE0 else body.startswith(b"Adobe")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (marker in (0xE0, 0xEE) and needed):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]), orientation(exif, xmp)


def _png(data: bytes) -> tuple[bytes, int]:
    """PNG, sections 5.3 and 5.4: critical chunks have an upper-case name; of the others only tRNS changes pixels."""
    kept, exif, xmp, at = [data[:8]], b"", b"", 8
    while at + 12 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if not name.isalpha() or (end > len(data) and name[:1].isupper()):
            break
        if name[:1].isupper() or name == b"tRNS":
            kept.append(data[at:end])
        elif name == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif name in (b"tEXt", b"zTXt"):
            exif = exif or _raw_profile(name, data[at + 8 : end - 4])
        elif name == b"iTXt":
            xmp += data[at + 8 : end - 4]
        at = end
    return b"".join([*kept, data[at:]]), orientation(exif, xmp)


def _raw_profile(name: bytes, text: bytes) -> bytes:
    """EXIF as ImageMagick writes it into a text of a PNG: a keyword, a length and hexadecimal digits."""
    keyword, _, content = text.partition(b"\0")
    if keyword != b"Raw profile type exif":
        return b""
    try:
        if name == b"zTXt":
            content = zlib.decompressobj().decompress(content[1:], _MOST_TEXT)
        return bytes.fromhex("".join(content.decode("ascii").split("\n")[3:]))
    except (zlib.error, ValueError):
        return b""


def _tiff(data: bytes) -> bytes:
    """The first directory with only those entries that decoding needs; the others' place is left unused."""
    order = "<" if data.startswith(b"II") else ">"
    start, entries = _entries(data, order)
    kept = [struct.pack(order + "HHI4s", *entry) for entry in entries if entry[0] in _TIFF_TAGS]
    if not kept:
        return data
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + b"\0\0\0\0"  # no directory follows
    return data[:start] + directory + data[start + len(directory) :]
