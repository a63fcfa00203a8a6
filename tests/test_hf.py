"""Hugging Face datasets on disk, written by the tests byte by byte as the hub and `datasets.save_to_disk` have them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emobench.data.datasets.hf import HuggingFace
from emobench.errors import DatasetError, DatasetMissing, RowError, SuiteError
from emobench.suite.rows import data_module

NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EMOTIONS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the same in emobench's words
SPLITS = {"train": range(70), "validation": range(70, 84), "test": range(84, 105)}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}


def hf(place: Path, **arguments: Any) -> HuggingFace:
    return HuggingFace(dataset=place.name, folder=place, cache=place.parent / "cache", **{"size": 12, **arguments})


def pixels(number: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


def png(number: int, side: int = 12) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number, side)).save(file, "PNG")
    return file.getvalue()


def table(rows: Sequence[int], features: dict[str, Any] | None = FEATURES, image: Any = None, **more: Any) -> pa.Table:
    """Pictures and labels of these numbers; further columns, or other ones in place of these, as lists or arrays."""
    columns: dict[str, Any] = {
        "image": pa.array([{"bytes": png(k), "path": f"{k}.png"} for k in rows] if image is None else image, IMAGE),
        "label": pa.array([k % 7 for k in rows], pa.int64()),
        **more,
    }
    found = pa.table({name: values for name, values in columns.items() if values is not None})
    if features is None:
        return found
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(top: Path, form: str = "data/{}-00000-of-00001.parquet", **arguments: Any) -> Path:
    for split, rows in SPLITS.items():
        path = top / form.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(rows, **arguments), path)
    return top


def saved(folder: Path, rows: Sequence[int], shards: int = 1, split: str = "train", **arguments: Any) -> Path:
    """A Dataset as `save_to_disk` writes it: Arrow's stream format, in record batches of at most 1,000 rows."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{k:05}-of-{shards:05}.arrow" for k in range(shards)]
    for part, name in zip(np.array_split(np.asarray(rows), shards), names, strict=True):
        content = table(part.tolist(), **arguments)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
            writer.write_table(content, max_chunksize=8)
    (folder / "dataset_info.json").write_text(
        json.dumps({"citation": "", "description": "", "features": FEATURES, "homepage": "", "license": ""})
    )
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def saved_dict(top: Path, **arguments: Any) -> Path:
    for split, rows in SPLITS.items():
        saved(top / split, rows, split=split, **arguments)
    (top / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    return top


def sizes(data: HuggingFace) -> dict[str, int]:
    return {split: sum(n.values()) for split, n in data.counts().items()}


def check(data: HuggingFace) -> None:
    """Splits, labels and pixels of all 105 faces, whatever the order of the files."""
    data.prepare()
    assert sizes(data) == {"train": 70, "val": 14, "test": 21}
    assert data.audit["excluded"] == 0
    first = {"train": 0, "val": 70, "test": 84}
    seen = dict.fromkeys(first, 0)
    for k, row in enumerate(data.faces.itertuples()):
        number = first[row.split] + seen[row.split]
        seen[row.split] += 1
        assert row.id == f"{row.source}#{row.row}"
        assert data.emotions[row.label] == EMOTIONS[number % 7]
        assert np.array_equal(data.images[k], pixels(number).transpose(2, 0, 1))


@pytest.mark.parametrize(
    "form",
    [
        "data/{}-00000-of-00001.parquet",
        "{}.parquet",
        "data/{}-00000-of-00001-0123456789abcdef.parquet",
        "default/{}/0000.parquet",
        "fer/data/{}-00000-of-00001.parquet",
        "snapshots/0123/{}/data.parquet",
        "my-faces_{}.PARQUET",
    ],
)
def test_parquet_files(tmp_path: Path, form: str) -> None:
    data = hf(parquet(tmp_path / "mine", form))
    check(data)
    first = data.faces["source"].iloc[-1]
    assert f"the ids mean what {data.faces['source'][0]} says: 0 angry, 1 disgust, 2 fear" in data.notes[0]
    assert first == form.format("validation")


@pytest.mark.parametrize(
    ("word", "split"),
    [("valid", "val"), ("val", "val"), ("dev", "val"), ("Validation", "val"), ("eval", "test"), ("testing", "test")],
)
def test_splits_by_other_words(tmp_path: Path, word: str, split: str) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    pq.write_table(table(range(70)), place / "train.parquet")
    pq.write_table(table(range(70, 84)), place / f"{word}-00000-of-00001.parquet")
    faces = hf(place).plan().faces
    assert set(faces.loc[faces["source"].str.startswith(word), "split"]) == {
        "test"
    }  # validation alone is the test split
    assert any(note.startswith("no test split") for note in hf(place).plan().notes) == (split == "val")


def test_files_that_name_no_split_are_drawn(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    pq.write_table(table(range(105)), place / "0000.parquet")
    data = hf(place).plan()
    assert "no official split: stratified, 80 % / 10 % / 10 %" in data.notes
    pq.write_table(table(range(105, 119)), place / "test.parquet")
    with pytest.raises(DatasetError, match="105 of 119 faces have no split"):
        hf(place).plan()
    (place / "test.parquet").rename(place / "train-test.parquet")
    with pytest.raises(DatasetError, match="train-test: the name says test and train. Rename the file"):
        hf(place).plan()


@pytest.mark.parametrize("as_dict", [True, False])
def test_saved_folders(tmp_path: Path, as_dict: bool) -> None:
    place = saved_dict(tmp_path / "mine")
    if not as_dict:
        (place / "dataset_dict.json").unlink()
    check(hf(place))
    check(hf(place, layout="."))


def test_a_saved_dataset_of_several_shards(tmp_path: Path) -> None:
    data = hf(saved(tmp_path / "mine", range(105), shards=3, split="test")).plan()
    assert data.faces["source"].nunique() == 3
    assert "no official split: stratified, 80 % / 10 % / 10 %" in data.notes  # saved alone, its split says nothing
    assert [data.emotions[label] for label in data.faces["label"]] == [EMOTIONS[k % 7] for k in range(105)]


def test_several_shards_and_row_groups(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / "data").mkdir(parents=True)
    for k in range(2):
        pq.write_table(
            table(range(35 * k, 35 * k + 35)), place / f"data/train-{k:05}-of-00002.parquet", row_group_size=4
        )
    pq.write_table(table(SPLITS["validation"]), place / "data/validation-00000-of-00001.parquet", row_group_size=5)
    pq.write_table(table(SPLITS["test"]), place / "data/test-00000-of-00001.parquet")
    check(hf(place))
    (place / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 files of train, without train-00001-of-00002\.parquet\. Fetch"):
        hf(place).plan()
    pq.write_table(table(range(35)), place / "data/train-00001-of-00003.parquet")
    with pytest.raises(DatasetError, match="two versions of train: .*Keep the files of one"):
        hf(place).plan()


# ---- labels ----------------------------------------------------------------------------------------------------------


def front_matter(column: str = "label") -> str:
    listed = "\n".join(f"          '{k}': {name}" for k, name in enumerate(NAMES))
    return f"""---
license: mit
dataset_info:
  features:
  - name: image
    dtype: image
  - name: {column}
    dtype:
      class_label:
        names:
{listed}
configs:
- config_name: default
---
# Faces
"""


def test_names_of_ids_in_the_readme(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine", features=None)
    (place / "README.md").write_text(front_matter())
    check(data := hf(place))
    assert data.notes[0].startswith("the ids mean what README.md says: 0 angry")
    (place / "README.md").write_text(front_matter("mood"))  # of another column
    with pytest.raises(RowError, match=r"row 0, label: the id 0, and nothing says what it means\. Set `names`"):
        hf(place).plan()


@pytest.mark.parametrize("names", [list(NAMES), "fer2013"])
def test_names_as_an_option(tmp_path: Path, names: Any) -> None:
    place = parquet(tmp_path / "mine", features=None)
    check(hf(place, names=names))
    with pytest.raises(DatasetError, match="the order affectnet says 0 neutral|7 ids, 0 to 6: .*`names`"):
        hf(place, names="alphabetical8").plan()
    assert hf(place, names=names).plan().fingerprint != hf(place, names="affectnet").plan().fingerprint


def test_names_that_differ_are_refused(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    check(hf(place, names=list(NAMES)))
    with pytest.raises(DatasetError, match=r"`names` says 0 neutral.*but data/test-.*parquet says 0 angry"):
        hf(place, names="affectnet").plan()
    (place / "README.md").write_text(front_matter().replace("'0': angry", "'0': happy"))
    with pytest.raises(DatasetError, match=r"data/test-.*parquet says 0 angry, but README\.md says 0 happy"):
        hf(place).plan()


def test_texts_are_labels_too(tmp_path: Path) -> None:
    words = {split: [NAMES[k % 7].upper() for k in rows] for split, rows in SPLITS.items()}
    for split, rows in SPLITS.items():
        kind = pa.dictionary(pa.int32(), pa.string()) if split == "test" else pa.string()
        path = tmp_path / "mine" / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table(rows, None, label=None, emotion=pa.array(words[split]).cast(kind)), path)
    check(hf(tmp_path / "mine"))


def test_own_names_and_names_that_are_no_emotions(tmp_path: Path) -> None:
    features = {**FEATURES, "label": {"names": ["Wut", *NAMES[1:6], "unklar"], "_type": "ClassLabel"}}
    place = parquet(tmp_path / "mine", features=features)
    with pytest.raises(DatasetError, match="no emotions: .*Wut.* or leave them out, as in ignore"):
        hf(place).plan()
    data = hf(place, labels={"anger": "Wut"}, ignore="unklar").plan()
    assert sizes(data) == {"train": 60, "val": 12, "test": 18}
    assert "left out, as `ignore` says: 15 unklar" in data.notes


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (9, r"data/train-00000-of-00001\.parquet, row 3, label: '9'\. Known: 0 is angry, 1 is disgust"),
        (-7, "row 3, label: '-7'"),
    ],
)
def test_ids_out_of_range_are_named(tmp_path: Path, label: int, message: str) -> None:
    place = parquet(tmp_path / "mine")
    labels = [label if k == 3 else k % 7 for k in range(70)]
    pq.write_table(table(range(70), label=pa.array(labels)), place / "data/train-00000-of-00001.parquet")
    with pytest.raises(RowError, match=message):
        hf(place).plan()


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    labels = [None if k == 3 else -1 if k == 5 else k % 7 for k in range(70)]
    pq.write_table(table(range(70), label=pa.array(labels)), place / "data/train-00000-of-00001.parquet")
    with pytest.raises(RowError, match="row 3, label: no label.* 2 of 105 labels hold no number, more than max_bad"):
        hf(place).plan()
    data = hf(place, max_bad=0.1).plan()
    source = "data/train-00000-of-00001.parquet"
    assert list(data.audit["excluded_faces"]) == [f"{source}#3", f"{source}#5"]
    assert sizes(data)["train"] == 68


def test_a_split_without_labels_is_not_used(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    test = place / "data/test-00000-of-00001.parquet"
    pq.write_table(table(SPLITS["test"], label=pa.array([-1] * 21)), test)
    data = hf(place).plan()
    assert "test has no labels: its 21 rows are not used" in data.notes
    assert sizes(data) == {"train": 63, "val": 7, "test": 14}
    pq.write_table(table(SPLITS["test"], {"image": {"_type": "Image"}}, label=None), test)
    data = hf(place).plan()
    assert "data/test-00000-of-00001.parquet has no column label: its 21 rows are not used" in data.notes


# ---- columns ---------------------------------------------------------------------------------------------------------


def test_columns_are_found_by_type_or_named(tmp_path: Path) -> None:
    features = {"face": {"_type": "Image"}, "emotion": FEATURES["label"], "file": {"dtype": "string", "_type": "Value"}}
    for split, rows in SPLITS.items():
        found = table(rows, file=pa.array([f"{k}.png" for k in rows])).rename_columns(["face", "emotion", "file"])
        said = {"huggingface": json.dumps({"info": {"features": features}})}
        (tmp_path / "mine").mkdir(exist_ok=True)
        pq.write_table(found.replace_schema_metadata(said), tmp_path / "mine" / f"{split}.parquet")
    check(hf(tmp_path / "mine"))
    check(hf(tmp_path / "mine", image_column="face", label_column="emotion"))
    with pytest.raises(DatasetError, match="no column 'image' of pictures. There are: face"):
        hf(tmp_path / "mine", image_column="image").plan()
    with pytest.raises(DatasetError, match="no column 'label' of labels. There are: emotion, file"):
        hf(tmp_path / "mine", label_column="label").plan()


def test_several_candidates_are_refused_by_name(tmp_path: Path) -> None:
    features = {**FEATURES, "person": {"names": ["a", "b"], "_type": "ClassLabel"}, "crop": {"_type": "Image"}}
    for split, rows in SPLITS.items():
        crops = pa.array([{"bytes": png(0), "path": None} for _ in rows], IMAGE)
        found = table(rows, features, person=pa.array([k % 2 for k in rows]), crop=crops)
        (tmp_path / "mine").mkdir(exist_ok=True)
        pq.write_table(found, tmp_path / "mine" / f"{split}.parquet")
    with pytest.raises(DatasetError, match="several columns of pictures: image, crop. Choose one by `image_column`"):
        hf(tmp_path / "mine").plan()
    with pytest.raises(DatasetError, match="several columns of labels: label, person. Choose one by `label_column`"):
        hf(tmp_path / "mine", image_column="image").plan()
    check(hf(tmp_path / "mine", image_column="image", label_column="label"))


def test_candidates_without_a_class_label(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine", features=None)
    rows = SPLITS["test"]
    words = pa.array([NAMES[k % 7] for k in rows])
    pq.write_table(table(rows, None, word=words), place / "data/test-00000-of-00001.parquet")
    with pytest.raises(DatasetError, match="several columns of labels: label, word"):
        hf(place).plan()
    check(hf(place, names=list(NAMES)))  # ids were meant


def test_pictures_as_bytes_and_none_at_all(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    for split, rows in SPLITS.items():
        found = (
            table(rows).drop_columns("image").append_column("picture", pa.array([png(k) for k in rows], pa.binary()))
        )
        pq.write_table(found.replace_schema_metadata(table(rows).schema.metadata), place / f"{split}.parquet")
    check(hf(place))
    for split, rows in SPLITS.items():
        pq.write_table(table(rows).drop_columns("image"), place / f"{split}.parquet")
    with pytest.raises(DatasetError, match="no column of pictures among label. Expected"):
        hf(place).plan()


def test_slices_and_people_are_columns(tmp_path: Path) -> None:
    gender = {"names": ["female", "male"], "_type": "ClassLabel"}
    for split, rows in SPLITS.items():
        found = table(
            rows,
            {**FEATURES, "Gender": gender},
            Gender=pa.array([k // 7 % 2 for k in rows]),
            age=pa.array([20 + k if k % 2 else None for k in rows]),
            glasses=pa.array([k % 3 == 0 for k in rows]),
            who=pa.array([k // 7 for k in rows]),
            caption=[["nested"] for _ in rows],
        )
        (tmp_path / "mine").mkdir(exist_ok=True)
        pq.write_table(found, tmp_path / "mine" / f"{split}.parquet")
    data = hf(tmp_path / "mine", subject_column="who").plan()
    rows = data.faces.sort_values(["split", "row"])
    train = rows[rows["split"] == "train"]
    assert train["gender"].iloc[[0, 7]].tolist() == ["female", "male"]
    assert train["age"].iloc[1] == 21
    assert train["age"].isna().sum() == 35
    assert train["glasses"].iloc[:2].tolist() == ["True", "False"]
    assert train["subject"].nunique() == 10
    assert "caption" not in data.faces
    check(data)
    with pytest.raises(DatasetError, match="no column 'whom' of people. There are: "):
        hf(tmp_path / "mine", subject_column="whom").plan()


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_pictures_that_cannot_be_read_are_excluded_and_counted(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    pictures: list[Any] = [{"bytes": png(k), "path": None} for k in range(70)]
    pictures[1] = {"bytes": None, "path": "/home/me/1.png"}
    pictures[2] = {"bytes": b"<html>", "path": None}
    pictures[3] = {"bytes": b"", "path": None}
    pictures[4] = None
    path = "data/train-00000-of-00001.parquet"
    pq.write_table(table(range(70), image=pictures), place / path)
    data = hf(place, max_bad=0.1).plan()
    again = "Save the dataset again, with its pictures in it."
    assert data.audit["excluded_faces"] == {
        f"{path}#1": f"{path}#1: no picture, only the path '/home/me/1.png'. {again}",
        f"{path}#2": f"{path}#2: not an intact image (a web page). Replace the file by an intact copy, or remove it.",
        f"{path}#3": f"{path}#3: no picture. {again}",
        f"{path}#4": f"{path}#4: no picture. {again}",
    }
    with pytest.raises(DatasetError, match="4 of 105 faces cannot be read, more than max_bad allows"):
        hf(place).plan()


def test_a_damaged_part_of_a_file_costs_its_rows_only(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    path = place / "data/train-00000-of-00001.parquet"
    pq.write_table(table(range(70)), path, row_group_size=10, compression="gzip", use_dictionary=False)
    where = pq.ParquetFile(path).metadata.row_group(3).column(0)
    content = bytearray(path.read_bytes())
    middle = where.data_page_offset + where.total_compressed_size // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    data = hf(place, max_bad=0.2).plan()
    assert list(data.audit["excluded_faces"]) == [f"{path.relative_to(place)}#{k}" for k in range(30, 40)]
    assert "cannot be read" in data.audit["excluded_faces"][f"{path.relative_to(place)}#30"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a pointer of git-lfs, .*`git lfs pull`",
        ),
        (b"", "no intact Parquet file .*Fetch the file again"),
        (b"<!doctype html>" * 20, "no intact Parquet file .*Fetch the file again"),
    ],
)
def test_files_that_are_no_parquet_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    place = parquet(tmp_path / "mine")
    (place / "data/test-00000-of-00001.parquet").write_bytes(content)
    with pytest.raises(RowError, match=rf"test-00000-of-00001\.parquet: {message}"):
        hf(place).plan()


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    (place / "data/test-00000-of-00001.parquet").unlink()
    os.mkfifo(place / "data/test-00000-of-00001.parquet")
    with pytest.raises(RowError, match="a FIFO"):
        hf(place).plan()


def test_damaged_saved_folders_are_named(tmp_path: Path) -> None:
    place = saved_dict(tmp_path / "mine")
    arrow = place / "test/data-00000-of-00001.arrow"
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RowError, match=r"data-00000-of-00001\.arrow: no intact Arrow stream"):
        hf(place).plan()
    arrow.unlink()
    with pytest.raises(DatasetError, match=r"test: no data-00000-of-00001\.arrow, which state\.json names"):
        hf(place).plan()
    state = place / "test/state.json"
    for changed, message in (
        ({"_data_files": [{"filename": "../train/data-00000-of-00001.arrow"}]}, "no list of files in it"),
        ({"_data_files": None}, "no list of files in it"),
        ({"_indices_files": [{"filename": "indices.arrow"}]}, "a further file of indices"),
    ):
        state.write_text(json.dumps({**json.loads((place / "train/state.json").read_text()), **changed}))
        with pytest.raises(DatasetError, match=message):
            hf(place).plan()
    state.write_text("{")
    with pytest.raises(RowError, match=r"state\.json: cannot be read"):
        hf(place).plan()
    state.unlink()
    with pytest.raises(DatasetError, match=r"no test/state\.json, which dataset_dict\.json names"):
        hf(place).plan()
    (place / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../secrets"]}))
    with pytest.raises(DatasetError, match="secrets/state.json, which dataset_dict.json names"):
        hf(place).plan()


def test_no_program_is_run(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    program = f"raise SystemExit(open({str(tmp_path / 'ran')!r}, 'w').write('x'))\n"
    for name in ("mine.py", "data/__init__.py"):
        (place / name).write_text(program)
    (place / "faces.csv").write_text("a,b")
    data = hf(place)
    check(data)
    assert "programs are left out, and never run: data/__init__.py, mine.py" in data.notes
    assert "1 file that is no face is left out: 1 .csv" in data.notes
    assert not (tmp_path / "ran").exists()
    only = tmp_path / "only"
    only.mkdir()
    (only / "only.py").write_text(program)
    with pytest.raises(DatasetMissing, match=r"only a program, only\.py, which is never run\. Save what it loads"):
        hf(only).plan()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    with pytest.raises(DatasetMissing, match=r"no folder .*Expected there: \ndata/train-00000-of-00002\.parquet"):
        hf(place).plan()
    place.mkdir()
    with pytest.raises(DatasetMissing, match="no Hugging Face dataset there. Expected there"):
        hf(place).plan()
    (place / "mine.zip").write_bytes(b"PK")
    with pytest.raises(DatasetMissing, match=r"Unpack mine\.zip first"):
        hf(place).plan()
    (place / "happy").mkdir()
    with pytest.raises(DatasetMissing, match="folders of pictures. Name it folder:mine"):
        hf(place).plan()
    (place / "mine-train.arrow").write_bytes(b"")
    with pytest.raises(DatasetMissing, match=r"Arrow files without state\.json\. Save the dataset again"):
        hf(place).plan()
    parquet(place / "one")
    parquet(place / "two")
    with pytest.raises(DatasetError, match="several layouts match: one, two.*`layout`"):
        hf(place).plan()
    check(hf(place, layout="two"))


def test_what_the_hub_client_leaves_is_not_looked_at(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    parquet(place / ".cache/huggingface/download")
    (place / ".gitattributes").write_text("")
    check(hf(place))
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for k, path in enumerate(sorted(place.glob("data/*.parquet"))):  # as in a snapshot of the hub's cache
        path.rename(blobs / str(k))
        path.symlink_to(blobs / str(k))
    (place / "loop").symlink_to(place)
    check(hf(place))


def test_a_change_is_noticed(tmp_path: Path) -> None:
    place = parquet(tmp_path / "mine")
    first = hf(place).plan()
    pictures = [{"bytes": png(k + 500), "path": None} for k in SPLITS["test"]]
    pq.write_table(table(SPLITS["test"], image=pictures), place / "data/test-00000-of-00001.parquet")
    assert hf(place).plan().fingerprint != first.fingerprint


# ---- memory, and how it is asked for ---------------------------------------------------------------------------------


LARGE = """
import sys
from pathlib import Path
import pyarrow as pa
from emobench.data.readers.columns import ColumnFile, Pictures

file = ColumnFile(Path(sys.argv[1]), stream=sys.argv[1].endswith(".arrow"))
labels = [label for label, in file.values(["label"])]
before = pa.default_memory_pool().max_memory()
pictures = Pictures("image")
bytes_read = sum(len(pictures.read(file, row)) for row in range(len(labels)))
print(len(labels), bytes_read, before, pa.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize("stream", [False, True])
def test_rows_are_read_in_bounded_memory(tmp_path: Path, stream: bool) -> None:
    """100 MB of pictures in one row group, or one record batch."""
    n = 2000
    rest = np.random.default_rng(0).bytes(50_000)
    content = table(range(n), image=[{"bytes": png(k, 8) + rest, "path": None} for k in range(n)])
    path = tmp_path / ("x.arrow" if stream else "x.parquet")
    if stream:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
            writer.write_table(content)
    else:
        pq.write_table(content, path, row_group_size=n, write_batch_size=16, data_page_size=2**20)
    ran = [sys.executable, "-c", LARGE, str(path)]
    said = subprocess.run(ran, capture_output=True, text=True, check=True)
    count, bytes_read, before, peak = map(int, said.stdout.split())
    assert (count, bytes_read) == (n, sum(len(png(k, 8)) + len(rest) for k in range(n)))
    assert before < 2**20  # labels alone
    assert peak < 40 * 2**20


def test_rows_in_any_order(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    pq.write_table(table(range(60)), place / "x.parquet", row_group_size=7)
    data = hf(place)
    index = data.index()
    for order in ([59, 0, 1, 30, 29, 58], [5, 5, 4], list(range(0, 60, 9))):
        for k, face in zip(order, data.read_many(index.iloc[order]), strict=True):
            assert np.array_equal(face, pixels(k).transpose(2, 0, 1))


def test_in_a_suite(tmp_path: Path) -> None:
    parquet(tmp_path / "mine")
    module, arguments = data_module("x", "hf:mine", {"label_column": "label", "size": 12}, tmp_path)
    assert arguments["label_column"] == "label"
    assert sizes(module.plan(pixels=False)) == {"train": 70, "val": 14, "test": 21}
    with pytest.raises(SuiteError, match="unknown argument 'label_colum': did you mean 'label_column'"):
        data_module("x", "hf:mine", {"label_colum": "label"}, tmp_path)
    with pytest.raises(DatasetError, match="order 'fer': known orders are"):
        data_module("x", "hf:mine", {"names": "fer"}, tmp_path)


def test_the_commands(emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet(tmp_path / "mine")
    assert emobench("data", "check", "hf:mine", "--data", tmp_path) == 0
    assert "| anger | 3 | 10 | 2 |" in capsys.readouterr().out
    assert emobench("datasets", "hf:mine") == 0
    assert "train-00000-of-00002.parquet" in capsys.readouterr().out
    assert emobench("doctor", "--data", tmp_path) == 0
    emotions = ", ".join(sorted(NAMES))
    assert f"  hf:mine: found, 105 faces of {emotions}" in capsys.readouterr().out.splitlines()
