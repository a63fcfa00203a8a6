"""Faults met in the field, by kinds: labels and their files. What each input did elsewhere must not happen again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emobench.data.dataset import Dataset
from emobench.data.datasets.affectnet import AffectNet
from emobench.data.datasets.ckplus import CKPlus
from emobench.data.datasets.expw import ExpW
from emobench.data.datasets.fer2013 import FER2013
from emobench.data.datasets.ferplus import FERPlus
from emobench.data.datasets.folder import Folder
from emobench.data.split import complete
from emobench.errors import DatasetError, DatasetMissing, RowError, SuiteError
from emobench.suite.file import Suite, load
from emobench.suite.rows import data_module, datasets_of, passed_over

FER = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # in the order of the ids
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def save(path: Path, number: int, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(path)


def tree(top: Path, names: list[str], each: int = 3, splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """`each` pictures below every split and name, no two of them equal."""
    for n, (split, name) in enumerate((split, name) for split in splits for name in names):
        for k in range(each):
            save(top / split / name / f"{k}.png", 100 * n + k)
    return top


def data(cls: type[Dataset], place: Path, **arguments: Any) -> Any:
    more = {"dataset": place.name} if cls is Folder else {}
    return cls(folder=place, cache=place.parent / "cache", **{"size": 16, **more, **arguments})  # type: ignore[call-arg]


def planned(cls: type[Dataset], place: Path, **arguments: Any) -> Any:
    return data(cls, place, **arguments).plan(pixels=False)


def labels_of(module: Any) -> dict[str, str]:
    """Source -> emotion."""
    return {row.source: module.emotions[row.label] for row in module.faces.itertuples() if row.label >= 0}


# ---- Labels that lie beside the data rule; assumed orders are questioned ---------------------------------------------
# (roboflow-python#88, OpenFace-3.0#15, POSTER_V2#7)

SEVEN = ["Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]


def yolo(top: Path, ids: int = 7) -> Path:
    for n, split in enumerate(("train", "valid", "test")):
        for k in range(14):
            save(top / split / "images" / f"{k}.png", 100 * n + k)
            label = top / split / "labels" / f"{k}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{k % ids} 0.5 0.5 1.0 1.0\n")
    return top.parent


def test_yolo_order_is_what_data_yaml_says(tmp_path: Path) -> None:
    place = yolo(tmp_path / "affectnet" / "YOLO_format")
    (place / "YOLO_format/data.yaml").write_text(f"nc: 7\nnames: {SEVEN}\n")
    found = planned(AffectNet, place)
    assert [labels_of(found)[f"YOLO_format/test/images/{k}.png"] for k in range(7)] == [n.lower() for n in SEVEN]
    assert "contempt" not in found.emotions
    assert found.notes[0] == (
        "the ids mean what YOLO_format/data.yaml says: "
        "0 Anger, 1 Disgust, 2 Fear, 3 Happy, 4 Neutral, 5 Sad, 6 Surprise"
    )
    both = r"order alphabetical8 says 1 contempt, .*but YOLO_format/data\.yaml says 1 Disgust"
    with pytest.raises(DatasetError, match=both):
        planned(AffectNet, place, order="alphabetical8")
    planned(AffectNet, place, order="alphabetical7")  # says the same


def test_yolo_without_names_is_questioned(tmp_path: Path) -> None:
    place = yolo(tmp_path / "affectnet" / "YOLO_format")
    with pytest.raises(DatasetError, match="7 ids, 0 to 6: AffectNet's alphabetical order.*no 7 surprise"):
        planned(AffectNet, place)
    assert labels_of(planned(AffectNet, place, order="fer2013"))["YOLO_format/test/images/6.png"] == "neutral"


RAF = [str(k) for k in range(1, 8)]


@pytest.mark.parametrize("order", ["affectnet", "ckplus", list(AFFECTNET)])
def test_raf_is_no_order_from_zero(tmp_path: Path, order: Any) -> None:
    place = tree(tmp_path / "rafdb", RAF)
    with pytest.raises(DatasetError, match="counts from 0 .*there is no 0, but 1, 2, 3, 4, 5, 6, 7") as error:
        planned(Folder, place, order=order)
    assert "rafdb: 1 surprise, 2 fear" in str(error.value)  # the next step
    found = planned(Folder, place, order="rafdb")
    assert [labels_of(found)[f"test/{k}/0.png"] for k in RAF] == [
        "surprise", "fear", "disgust", "happy", "sad", "anger", "neutral",
    ]  # fmt: skip


def test_an_order_does_not_explain_ids_of_other_classes(tmp_path: Path) -> None:
    place = tree(tmp_path / "seven", [str(k) for k in range(7)], each=1)
    with pytest.raises(DatasetError, match="7 ids, 0 to 6: the order alphabetical8 .*there is no 7 surprise"):
        planned(Folder, place, order="alphabetical8")
    found = planned(Folder, place, order="affectnet")  # AffectNet without contempt, as many papers have it
    assert "the order affectnet: 7 contempt never occurs" in found.notes


BESIDE = {
    "data.yaml": "names:\n  0: Freude\n  1: sad\n  2: angry\n",
    "classes.txt": "happy\nsad\nangry\n",
    "labels.txt": "0 happy\n1 sad\n2 angry\n",
    "class_indices.json": json.dumps({"happy": 0, "sad": 1, "angry": 2}),
    "config.json": json.dumps({"epochs": 3, "id2label": {"0": "happy", "1": "sad", "2": "angry"}}),
    "dataset_info.json": json.dumps(
        {
            "features": {
                "image": {"_type": "Image"},
                "label": {"names": ["happy", "sad", "angry"], "_type": "ClassLabel"},
            }
        }
    ),
    "README.md": "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    "          '0': happy\n          '1': sad\n          '2': angry\n---\n# Faces\n",
}


@pytest.mark.parametrize("name", BESIDE)
def test_names_beside_numbered_folders_are_read(tmp_path: Path, name: str) -> None:
    place = tree(tmp_path / "x", ["0", "1", "2"])
    (place / name).write_text("\ufeff" * (name == "classes.txt") + BESIDE[name], encoding="utf-8")
    own = {"labels": {"happy": "freude"}} if "Freude" in BESIDE[name] else {}
    found = planned(Folder, place, **own)
    assert [labels_of(found)[f"test/{k}/0.png"] for k in range(3)] == ["happy", "sad", "anger"]
    with pytest.raises(DatasetError, match=rf"fer2013 says 0 anger.*but {name} says 0 (happy|Freude)"):
        planned(Folder, place, order="fer2013", **own)


def test_names_beside_that_say_nothing_of_classes_are_passed(tmp_path: Path) -> None:
    place = tree(tmp_path / "x", ["0", "1", "2"])
    (place / "README.md").write_text("# Faces\n\n0 is happy\n")
    (place / "config.json").write_text('{"epochs": 0, "lr": 1}')
    (place / "labels.txt").write_text("0/a.png 1\n0/b.png 0\n")
    assert labels_of(planned(Folder, place, order="fer2013"))["test/0/0.png"] == "anger"
    (place / "data.yaml").write_text("names: [happy, sad\n")
    with pytest.raises(RowError, match=r"data\.yaml: cannot be read .*Mend or remove"):
        planned(Folder, place, order="fer2013")


def test_names_beside_a_table_may_not_differ_from_its_ids(tmp_path: Path) -> None:
    place = table(tmp_path / "fer2013", "emotion,pixels,Usage")
    (place / "classes.txt").write_text("\n".join(FER))
    planned(FER2013, place)
    (place / "classes.txt").write_text("\n".join(SEVEN))
    with pytest.raises(DatasetError, match=r"FER-2013's ids says 4 sad, .*but classes\.txt says 4 Neutral"):
        planned(FER2013, place)
    own = {name.lower(): str(k) for k, name in enumerate(SEVEN)}  # the user's word is the last one
    found = planned(FER2013, place, labels=own)
    assert [found.emotions[label] for label in found.faces["label"][:7]] == [name.lower() for name in SEVEN]


# ---- Columns by name: without case, known spellings, once each -------------------------------------------------------
# (torchvision#8118, pandas#9424)


def table(place: Path, header: str, n: int = 42, first: tuple[str, ...] = ()) -> Path:
    """fer2013.csv with columns in the header's order; further ones are 9. Ids of the first rows may be replaced."""
    lines = [header]
    for k in range(n):
        pixels = " ".join(map(str, np.random.default_rng(k).integers(0, 256, 2304)))
        split = ("Training", "Training", "PublicTest", "PrivateTest")[k // 7 % 4]
        fields = {"emotion": first[k] if k < len(first) else str(k % 7), "pixels": pixels, "usage": split}
        fields |= {"label": fields["emotion"], "split": split}
        lines.append(",".join(fields.get(name.strip().lower(), "9") for name in header.split(",")))
    place.mkdir(parents=True, exist_ok=True)
    (place / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.parametrize("header", ["emotion,pixels,usage", " Emotion ,PIXELS, USAGE", "emotion,pixels,split"])
def test_lower_usage_keeps_the_official_split(tmp_path: Path, header: str) -> None:
    found = planned(FER2013, table(tmp_path / "fer2013", header))
    assert {split: sum(n.values()) for split, n in found.counts().items()} == {"train": 28, "val": 7, "test": 7}
    said = ["fer2013.csv: the column 'split' is taken for Usage"] if "split" in header else []
    assert found.notes == said


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("emotion,pixels,Usage,emotion", r"the header names 'emotion' \(column 1\) and 'emotion' \(column 4\)"),
        ("emotion,pixels,Usage, Emotion", r"the header names 'emotion' \(column 1\) and 'Emotion' \(column 4\)"),
        ("emotion,pixels,Usge", "Usge: no column Usage, but 'Usge', which is almost it"),
        ("emotoin,pixels,Usage", "no header with emotion, but .*Is 'emotoin' meant to be emotion?"),
    ],
)
def test_doubles_and_near_misses_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(RowError, match=rf"fer2013\.csv, row 1.*{message}"):
        planned(FER2013, table(tmp_path / "fer2013", header))


# ---- Numbers in label files are numbers ------------------------------------------------------------------------------
# (NaN, infinity, nothing; text and bytes that spell an id)


def npy(place: Path, wrong: dict[int, Any] | None = None, n: int = 160) -> Path:
    """AffectNet's npy layout, with other content in some of the annotations; None: a file of 0 bytes."""
    for k in range(n):
        top = place / ("train_set" if k < n - 16 else "val_set")
        save(top / "images" / f"{k}.png", k)
        (top / "annotations").mkdir(exist_ok=True)
        for name, value in (("exp", (wrong or {}).get(k, k % 8)), ("val", 0.5), ("aro", np.inf if k == 1 else 0.25)):
            file = top / "annotations" / f"{k}_{name}.npy"
            file.write_bytes(b"") if value is None else np.save(file, np.array(value))
    return place


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, [], None, "", b"nan"])
def test_npy_without_a_number_is_excluded_and_counted(tmp_path: Path, value: Any) -> None:
    found = planned(AffectNet, npy(tmp_path / "affectnet", {3: value}))
    excluded = found.faces[found.faces["split"] == "excluded"]
    assert excluded["id"].tolist() == ["train_set/images/3.png"]
    assert found.audit["excluded"] == 1
    assert "3_exp.npy: '" in found.audit["excluded_faces"]["train_set/images/3.png"]
    assert sum(sum(n.values()) for n in found.counts().values()) == 159
    assert found.faces["arousal"].isna().to_numpy().nonzero()[0].tolist() == [
        found.faces["id"].tolist().index("train_set/images/1.png")
    ]


def test_npy_without_numbers_is_refused_above_max_bad(tmp_path: Path) -> None:
    place = npy(tmp_path / "affectnet", {k: np.nan for k in (3, 4)})
    with pytest.raises(RowError, match=r"3_exp\.npy: 'nan'.*2 of 160 labels hold no number, more than max_bad = 0\.01"):
        planned(AffectNet, place)
    assert planned(AffectNet, place, max_bad=0.02).audit["excluded"] == 2


@pytest.mark.parametrize("value", [np.array("3"), np.array(b"3"), "b'3'", [3], 3.0, "3.0", " 3 "])
def test_npy_text_and_bytes_that_spell_an_id_are_read(tmp_path: Path, value: Any) -> None:
    assert (
        labels_of(planned(AffectNet, npy(tmp_path / "affectnet", {8: value})))["train_set/images/8.png"] == "surprise"
    )


@pytest.mark.parametrize("value", [3.5, 11, "drei", [1, 2]])
def test_npy_of_other_things_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(RowError, match=r"8_exp\.npy"):
        planned(AffectNet, npy(tmp_path / "affectnet", {8: value}))


def test_the_same_in_csv(tmp_path: Path) -> None:
    place = table(tmp_path / "fer2013", "emotion,pixels,Usage", 140, first=("b'3'", "nan", " 4 "))
    found = data(FER2013, place).plan()
    assert labels_by_id(found)["0"] == "happy"
    assert labels_by_id(found)["2"] == "sad"
    assert found.faces.loc[found.faces["split"] == "excluded", "id"].tolist() == ["1"]
    assert found.audit["excluded_faces"]["1"].startswith("fer2013.csv, row 3, emotion: 'nan'")
    with pytest.raises(RowError, match=r"row 3, emotion: 'inf'.*2 of 140 labels hold no number"):
        planned(FER2013, table(tmp_path / "fer2013", "emotion,pixels,Usage", 140, first=("1", "inf", "")))


def labels_by_id(module: Any) -> dict[str, str]:
    return {row.id: module.emotions[row.label] for row in module.faces.itertuples() if row.label >= 0}


# ---- Labels in the user's own words ----------------------------------------------------------------------------------

OWN = {"happy": "Freude", "sad": ["Trauer", "sad1"], "surprise": "\u00fcberrascht"}


def test_own_names_of_folders(tmp_path: Path) -> None:
    names = ["FREUDE", "Trauer", "sad1", "u\u0308berrascht", "neutral", "unklar"]  # as a Mac writes umlauts
    place = tree(tmp_path / "meine", names, each=2)
    found = planned(Folder, place, labels=OWN, ignore=["unklar", "kaputt"])
    assert found.emotions == ("neutral", "happy", "sad", "surprise")
    assert found.counts()["test"] == {"neutral": 2, "happy": 2, "sad": 4, "surprise": 2}
    assert "left out, as `ignore` says: 6 unklar" in found.notes
    assert "named in `labels` or `ignore`, and nowhere in the data: 'kaputt'" in found.notes
    plain = planned(Folder, tree(tmp_path / "plain", ["happy", "sad"], each=2))
    assert "labels" not in plain.settings  # the fingerprint of a dataset without them stays


def test_unknown_names_list_the_nearest(tmp_path: Path) -> None:
    place = tree(tmp_path / "x", ["happy", "suprised", "Freude"])
    with pytest.raises(DatasetError) as error:
        planned(Folder, place)
    said = str(error.value)
    assert "no emotions: Freude, suprised (did you mean 'surprised'?). Rename" in said
    assert 'labels = { happy = "Freude" }' in said
    assert 'ignore = ["Freude"]' in said
    for wrong, message in (
        ({"labels": {"hapy": "Freude"}}, "unknown emotion 'hapy': did you mean 'happy'?"),
        ({"labels": {"happy": "x"}, "ignore": "X"}, "'X' is happy and left out. Name it once"),
        ({"labels": {"happy": "x", "sad": ["x"]}}, "'x' is happy and sad"),
        ({"labels": {"happy": 3.5}}, "3.5 is neither a name nor a list"),
    ):
        with pytest.raises(SuiteError, match=message.replace("?", r"\?")):
            data(Folder, place, **wrong)


def test_own_names_in_every_dataset(tmp_path: Path) -> None:
    fer = planned(
        FER2013,
        table(tmp_path / "fer2013", "emotion,pixels,Usage", 70, first=("Wut", "8")),
        labels={"anger": ["Wut", "1"]},
        ignore="8",
    )
    assert labels_by_id(fer)["0"] == "anger"
    assert labels_by_id(fer)["8"] == "anger"  # id 1 was disgust
    assert "1" not in labels_by_id(fer)
    assert "left out, as `ignore` says: 1 8" in fer.notes

    rows = [f"a{k}.png 0 0 0 16 16 90.0 {'Freude' if k == 0 else k % 7}" for k in range(35)]
    for k in range(35):
        save(tmp_path / "expw/image/origin" / f"a{k}.png", k)
    (tmp_path / "expw/label.lst").write_text("\n".join(rows))
    expw = planned(ExpW, tmp_path / "expw", labels={"happy": "freude"}, ignore=["6"])
    assert labels_of(expw)["image/origin/a0.png"] == "happy"
    assert len(expw.faces) == 30

    affectnet = planned(AffectNet, npy(tmp_path / "affectnet", {8: 8}), labels={"neutral": "8"}, ignore="7")
    assert labels_of(affectnet)["train_set/images/8.png"] == "neutral"
    assert affectnet.counts()["test"]["neutral"] == 2
    assert "contempt" not in affectnet.emotions

    for k, name in enumerate(["Freude", "sad"] * 10):
        save(tmp_path / "ckplus" / name / f"S{k:03}_001_00000001.png", k)
    assert planned(CKPlus, tmp_path / "ckplus", labels={"happy": "Freude"}).emotions == ("happy", "sad")


def test_own_columns_of_ferplus(tmp_path: Path) -> None:
    table(tmp_path / "fer2013", "emotion,pixels,Usage", 28)
    names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
    votes = [[4 if k % 8 == column else 0 for column in range(10)] for k in range(28)]
    votes[5] = [0, 4, 0, 0, 3, 3, 0, 0, 0, 0]  # happiness leads, but anger and disgust together do
    usage = [("Training", "Training", "PublicTest", "PrivateTest")[k // 7 % 4] for k in range(28)]
    lines = [",".join(["usage", "image name", *(name.upper() for name in names)])]
    lines += [",".join([usage[k], f"{k}.png", *map(str, votes[k])]) for k in range(28)]
    (tmp_path / "fer2013" / "fer2013new.csv").write_text("\n".join(lines))
    own = {"labels": {"anger": ["anger", "disgust"]}, "ignore": "contempt"}
    found = planned(FERPlus, tmp_path / "ferplus", **own)
    assert labels_by_id(found)["5"] == "anger"
    assert "7" not in labels_by_id(found)
    assert labels_by_id(planned(FERPlus, tmp_path / "ferplus"))["5"] == "happy"


# ---- A folder that is no dataset never refuses a suite that did not name it ------------------------------------------


def suite(tmp_path: Path, extra: str = "") -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(f'[data."folder:*"]\nsize = 32\n{extra}\n[model.resnet18]\nwidth = 0.0625\n')
    return load(path)


def test_folders_that_are_no_datasets_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    tree(root / "good", ["Freude", "sad"])
    (root / "notes").mkdir()
    assert list(datasets_of(suite(tmp_path, 'labels = { happy = "Freude" }'), root)) == ["folder:good"]
    listed = passed_over(suite(tmp_path), root)["folder:*"]
    assert listed == [f"{root / 'notes'} is no dataset: no folder of an emotion in it, nor below folders for splits"]


def test_a_broken_folder_is_skipped_with_its_reason(tmp_path: Path) -> None:
    from emobench.suite.expand import expand

    root = tmp_path / "root"
    tree(root / "good", ["happy", "sad"])
    tree(root / "broken", ["happy", "cats"])
    plan = expand(suite(tmp_path), root)
    assert {cell.dataset for cell in plan.cells} == {"folder:good"}
    assert [(each.dataset, "no emotions: cats" in each.reason) for each in plan.skipped] == [("folder:broken", True)]


@pytest.mark.parametrize("folders", [[], ["notes"]])
def test_folder_star_that_finds_nothing_says_why(tmp_path: Path, folders: list[str]) -> None:
    from emobench.suite.expand import expand

    for name in folders:
        (tmp_path / "root" / name).mkdir(parents=True)
    reason = (
        "notes is no dataset: no folder of an emotion" if folders else "no folder there that the suite does not name"
    )
    with pytest.raises(SuiteError, match=rf"nothing can run here: folder:\*: .*{reason}"):
        expand(suite(tmp_path), tmp_path / "root")


# ---- Refusals say the next step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fer2013.csv.zip", "fer2013.csv"])
def test_csv_zip_and_csv_is_zip_name_the_zip(tmp_path: Path, name: str) -> None:
    (tmp_path / "fer2013").mkdir()
    with zipfile.ZipFile(tmp_path / "fer2013" / name, "w") as packed:
        packed.writestr("fer2013.csv", "emotion,pixels,Usage\n")
    expected = (
        r"Unpack fer2013\.csv\.zip first" if name.endswith("zip") else r"fer2013\.csv: .*a zip archive.*Unpack it"
    )
    with pytest.raises(DatasetMissing if name.endswith("zip") else RowError, match=expected):
        planned(FER2013, tmp_path / "fer2013")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\xff\xfee\x00m\x00", "UTF-16. Save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs, .*`git lfs pull`"),
        (b"\n<!DOCTYPE html>", "a web page. Fetch the file again"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive. Unpack it first"),
    ],
)
def test_other_files_under_a_table_name(tmp_path: Path, head: bytes, message: str) -> None:
    (tmp_path / "fer2013").mkdir()
    (tmp_path / "fer2013/fer2013.csv").write_bytes(head)
    with pytest.raises(RowError, match=message):
        planned(FER2013, tmp_path / "fer2013")


@pytest.mark.parametrize(
    "names", [("Training", "PublicTest", "PrivateTest"), ("training", "Public Test", "private_test")]
)
@pytest.mark.parametrize("cls", [FER2013, Folder])
def test_fer_usage_folders_keep_the_test_split(tmp_path: Path, cls: type[Dataset], names: tuple[str, str, str]) -> None:
    found = planned(cls, tree(tmp_path / "fer2013", list(FER), each=1, splits=names))
    assert {found.faces["split"][k] for k in range(21) if found.faces["source"][k].startswith(names[2])} == {"test"}
    assert {found.faces["split"][k] for k in range(21) if found.faces["source"][k].startswith(names[1])} == {"val"}


def test_out_into_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from emobench.commands.data import check, show
    from emobench.errors import StoreError

    tree(tmp_path / "x", ["happy", "sad"])
    out = tmp_path / "new" / "deep" / "audit.json"
    assert check("folder:x", tmp_path, [], pixels=False, out=out) == 0
    assert json.loads(out.read_text())["faces"] == 18
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file" / "audit.md", tmp_path / "new"):
        with pytest.raises(StoreError, match="--out"):
            check("folder:missing", tmp_path, [], pixels=False, out=wrong)  # before the dataset is looked for
    with pytest.raises(StoreError, match=r"no kind of picture ends in '\.txt'"):
        show("folder:missing", tmp_path, [], split="train", each=1, seed=0, out=tmp_path / "a.txt")


# ---- Tiny data are called tiny ---------------------------------------------------------------------------------------


def drawn(
    labels: list[str], subject: list[str] | None = None, twin: list[int] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    index = pd.DataFrame({"label": labels, "subject": subject, "split": None, "twin": twin or range(len(labels))})
    index["id"] = index.index.astype(str)
    split, notes = complete(index, "x")
    return index.assign(split=split), notes


@pytest.mark.parametrize("each", [3, 4, 5, 7, 12])
def test_each_split_has_a_face_of_each_class_of_three_groups(each: int) -> None:
    index, notes = drawn(["happy"] * each + ["sad"] * each + ["fear"] * 3)
    assert (pd.crosstab(index["label"], index["split"]) > 0).all(axis=None)
    assert not any("too few" in note for note in notes)


def test_fewer_groups_are_said() -> None:
    # Six faces of fear, but of two: the others are copies.
    index, notes = drawn(["happy"] * 20 + ["fear"] * 6, twin=[*range(20), 20, 20, 20, 21, 21, 21])
    assert index.groupby("twin")["split"].nunique().eq(1).all()
    assert notes[-1] == (
        "no official split: stratified, 80 % / 10 % / 10 %; "
        "too few for a face in each of the 3: of faces that are no copies of each other, fear has 2"
    )


def test_people_with_rare_emotions_are_spread() -> None:
    # Of thirty people three show contempt, too; every one shows happy and sad.
    labels, subject = [], []
    for person in range(30):
        shown = ["happy", "sad"] + ["contempt"] * (person in (4, 9, 17))
        labels += shown
        subject += [f"p{person}"] * len(shown)
    index, notes = drawn(labels, subject)
    assert index[index["label"] == "contempt"].groupby("split").size().to_dict() == {"train": 1, "val": 1, "test": 1}
    assert index.groupby("subject")["split"].nunique().eq(1).all()
    assert not any("too few" in note for note in notes)


def test_data_module_takes_labels_from_a_suite(tmp_path: Path) -> None:
    tree(tmp_path / "x", ["Freude", "sad", "unklar"])
    module, arguments = data_module("x", "folder:x", {"labels": {"happy": "Freude"}, "ignore": ["unklar"]}, tmp_path)
    assert arguments["labels"] == {"happy": "Freude"}
    assert module.plan(pixels=False).emotions == ("happy", "sad")
