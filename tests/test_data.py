"""The way from faces to batches: split, balance, pack, loaders, and images of every kind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from emobench.data import datamodule, pack
from emobench.data.datamodule import EmotionDataModule
from emobench.data.joint import Interleaved
from emobench.data.loaders import Balance
from emobench.data.readers.images import read_face
from emobench.definitions import PACKAGE, Code
from emobench.definitions.roots import EXEMPT
from emobench.errors import DatasetError, RowError
from emobench.recipe import Augment, Recipe

NAMES = np.array(["happy", "sad", "anger"])


class Drawn(EmotionDataModule):
    """Noise whose labels, subjects and splits the tests choose; `packed` counts the faces that are read."""

    name = "drawn"
    expects = "noise"  # so that it is audited
    packed = 0

    def __init__(
        self,
        *,
        labels: list[int],
        split: list[str | None] | None = None,
        subject: list[str] | None = None,
        pixels: list[int] | None = None,
        colour: tuple[int, ...] = (),
        **base: Any,
    ) -> None:
        settings = {"labels": labels, "split": split, "subject": subject, "pixels": pixels, "colour": colour}
        super().__init__(settings, **base)
        self.of = (labels, split, subject, pixels or list(range(len(labels))))
        self.colour = colour

    def index(self) -> pd.DataFrame:
        labels, split, subject, pixels = self.of
        ids = [f"face{n}" for n in range(len(labels))]
        table = {"id": ids, "source": "", "label": NAMES[labels], "subject": subject, "split": split}
        return pd.DataFrame({**table, "pixels": pixels})

    def read(self, row: Any) -> np.ndarray:
        type(self).packed += 1
        channels = 3 if row.pixels in self.colour else 1
        return np.random.default_rng(row.pixels).integers(0, 256, (channels, 20, 16), np.uint8)


def ready(tmp_path: Path, labels: list[int], **arguments: Any) -> Drawn:
    drawn = Drawn(labels=labels, size=16, cache=tmp_path / "cache", **arguments)
    drawn.prepare()
    return drawn


# ---- split -----------------------------------------------------------------------------------------------------------


def test_stratified_split_shares_every_class(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0] * 100 + [1] * 50 + [2] * 10)
    assert drawn.emotions == ("happy", "sad", "anger")
    assert drawn.counts() == {
        "train": {"happy": 80, "sad": 40, "anger": 8},
        "val": {"happy": 10, "sad": 5, "anger": 1},
        "test": {"happy": 10, "sad": 5, "anger": 1},
    }
    assert drawn.notes == ["no official split: stratified, 80 % / 10 % / 10 %"]


def test_subjects_never_cross_a_split(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 100, subject=[f"s{n // 7}" for n in range(300)])
    assert (drawn.faces.groupby("subject")["split"].nunique() == 1).all()
    counts = drawn.counts()
    assert all(25 <= sum(counts[split].values()) <= 35 for split in ("val", "test"))


def test_official_splits_with_a_crossing_subject_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 subjects are in several splits \(s0"):
        ready(tmp_path, [0, 1, 0, 1], subject=["s0", "s0", "s1", "s2"], split=["train", "val", "val", "test"])


def test_carved_validation_keeps_equal_faces_together(tmp_path: Path) -> None:
    split = ["train"] * 200 + ["test"] * 20
    pixels = [n // 4 for n in range(220)]
    drawn = ready(tmp_path, [0, 1] * 110, split=split, pixels=pixels)
    assert sum(drawn.counts()["val"].values()) == 20
    assert (drawn.faces[:200].groupby("pixels")["split"].nunique() == 1).all()
    assert drawn.notes == ["validation is carved from training (stratified, 10 %)"]


def test_validation_without_test_becomes_the_test_split(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1] * 60, split=["train"] * 100 + ["val"] * 20)
    assert {split: sum(n.values()) for split, n in drawn.counts().items()} == {"train": 90, "val": 10, "test": 20}
    assert drawn.notes[0] == "no test split: the validation split (20 faces) is the test split"


def test_leaked_marks_test_faces_that_training_or_validation_has(tmp_path: Path) -> None:
    drawn = ready(
        tmp_path,
        [0, 1, 0, 1, 0, 1],
        split=["train", "train", "val", "test", "test", "test"],
        pixels=[1, 2, 3, 2, 3, 4],
    )
    assert drawn.leaked().tolist() == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    ("labels", "split", "message"),
    [
        ([], None, "no faces"),
        ([0] * 20, None, "all faces show happy"),
        ([0, 1, 2], None, "3 faces, but none for val and test"),
        ([0, 1, 0, 1], ["val", "val", "test", "test"], "none for train"),
        ([0, 1, 0], ["train", None, "test"], "1 of 3 faces have no split"),
    ],
)
def test_unusable_splits_are_refused(
    tmp_path: Path, labels: list[int], split: list[str | None] | None, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        ready(tmp_path, labels, split=split)


def test_a_class_missing_in_a_split_is_said(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2, 0, 1, 0], split=["train", "train", "train", "val", "val", "test"])
    assert drawn.notes == [
        "val has no face of anger, which counts 0 in macro F1",
        "test has no face of sad, anger, which counts 0 in macro F1",
    ]
    assert drawn.counts()["test"] == {"happy": 1, "sad": 0, "anger": 0}


# ---- cache, fingerprint, pack ----------------------------------------------------------------------------------------


def test_fingerprint_follows_content_and_settings(tmp_path: Path) -> None:
    labels = [0, 1, 2] * 20
    first, again = ready(tmp_path, labels), ready(tmp_path / "elsewhere", labels)
    assert first.fingerprint == again.fingerprint
    assert (
        Drawn(labels=labels, size=32, cache=tmp_path).plan().fingerprint == first.fingerprint
    )  # the size is not in it
    assert ready(tmp_path, [1, *labels[1:]]).fingerprint != first.fingerprint


def test_the_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    first = ready(tmp_path, [0, 1, 2] * 20)
    before = Drawn.packed
    second = ready(tmp_path, [0, 1, 2] * 20)
    assert Drawn.packed == before
    pd.testing.assert_frame_equal(first.faces, second.faces)
    assert np.array_equal(first.images, second.images)
    assert second.notes == first.notes
    assert second.faces.index.tolist() == list(range(60))


def test_a_changed_loader_is_not_answered_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(tmp_path, [0, 1, 2] * 20)
    before = Drawn.packed
    monkeypatch.setattr(Drawn, "_code", lambda self: "another")
    ready(tmp_path, [0, 1, 2] * 20)
    assert Drawn.packed == before + 60


@pytest.mark.slow
def test_the_code_of_a_dataset_is_what_it_reaches(tmp_path: Path) -> None:
    """Keys and the cache of packs follow definitions alike: imports inside functions and constants, no comments."""
    from emobench.data.datasets.folder import Folder

    assert Folder._code() == Folder._code() != Drawn._code()
    copy = tmp_path / "emobench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    root = [("emobench.data.datasets.folder", "Folder")]
    assert Code(copy, EXEMPT).digest(root) == Folder._code()

    def changed(file: str, old: str, new: str) -> bool:
        path = copy / "data" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        digest = Code(copy, EXEMPT).digest(root)
        path.write_text(text)
        return digest != Folder._code()

    assert not changed("pack.py", "from __future__", "# a comment\nfrom __future__")
    assert not changed("datasets/fer2013.py", "LABELS = ", "LABELS = () or ")
    assert changed("pack.py", "_RECORD = ", "_RECORD = {} or ")  # folder.py reaches it through datamodule.py
    assert changed("readers/images.py", "MAX_PIXELS = ", "MAX_PIXELS = 1 + ")
    assert changed("augment.py", "import albumentations as A", "import another as A")  # inside a function


def test_pack_is_resized_and_stays_gray(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1] * 10)
    face = drawn.read(next(drawn.faces.itertuples()))
    expected = np.asarray(Image.fromarray(face[0]).resize((16, 16), Image.Resampling.BILINEAR))
    assert drawn.images.shape == (20, 1, 16, 16)
    assert np.array_equal(drawn.images[0, 0], expected)
    assert drawn.faces["hash"][0] == pack.pixel_hash(face)
    assert isinstance(drawn.images, np.memmap)
    assert not drawn.images.flags.writeable


def test_one_colour_face_makes_the_pack_colour(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1] * 10, colour=(7,))
    assert drawn.images.shape == (20, 3, 16, 16)
    assert np.array_equal(drawn.images[3, 0], drawn.images[3, 2])
    assert not np.array_equal(drawn.images[7, 0], drawn.images[7, 2])


class Broken(Drawn):
    def read(self, row: Any) -> np.ndarray:
        if row.pixels % 10 == 3:
            raise RowError(f"{row.id}.jpg", None, None, "not an intact image", "Replace it.")
        return super().read(row)


def test_too_many_unreadable_faces_refuse_the_dataset(tmp_path: Path) -> None:
    broken = Broken(labels=[0, 1] * 10, size=16, cache=tmp_path)
    limit = r"2 of 20 faces cannot be read, more than max_bad allows.*above 0\.01 in the suite's table of the dataset;"
    message = rf"{limit}.*:\n  face3\.jpg.*\n  face13\.jpg"
    for _ in range(2):  # the second time from what the first one found
        with pytest.raises(DatasetError, match=message):
            broken.prepare()


def test_few_unreadable_faces_are_excluded_for_every_model_alike(tmp_path: Path) -> None:
    broken = Broken(labels=[0, 1] * 40, size=16, cache=tmp_path, max_bad=0.1)
    broken.prepare()
    assert broken.faces.index[broken.faces["split"] == "excluded"].tolist() == [3, 13, 23, 33, 43, 53, 63, 73]
    assert broken.notes[0].startswith("8 of 80 faces cannot be read and are left out, such as face3.jpg: not an intact")
    assert sum(sum(counts.values()) for counts in broken.counts().values()) == 72
    assert broken.audit["excluded"] == 8
    assert broken.images.shape[0] == 80  # a row of the index is the row of the pack
    assert not broken.images[3].any()
    assert np.array_equal(broken.images[4, 0], _resized_face(broken, 4))
    broken.feed(recipe=Recipe(epochs=1, batch=8), seed=0)
    seen = torch.cat([batch["index"] for batch in broken.train_dataloader()])
    assert not set(seen.tolist()) & set(range(3, 80, 10))
    again = Broken(labels=[0, 1] * 40, size=16, cache=tmp_path)  # the plan is there, but a stricter limit holds now
    with pytest.raises(DatasetError, match="8 of 80 faces cannot be read"):
        again.plan()


def _resized_face(drawn: Drawn, row: int) -> np.ndarray:
    face = drawn.read(next(drawn.faces.iloc[row : row + 1].itertuples()))
    return np.asarray(Image.fromarray(face[0]).resize((16, 16), Image.Resampling.BILINEAR))


class Slow(Drawn):
    """Stops for good at the face with the number `until`."""

    until = -1

    def read(self, row: Any) -> np.ndarray:
        if row.pixels == self.until:
            raise KeyboardInterrupt
        return super().read(row)


def test_an_interrupted_pack_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "CHUNK", 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one process, which counts what it reads
    monkeypatch.setattr(pack, "_in_processes", lambda job, starts: (pack._decode_part(job, start) for start in starts))
    monkeypatch.setattr(Slow, "until", 50)
    with pytest.raises(KeyboardInterrupt):
        Slow(labels=[0, 1] * 40, size=16, cache=tmp_path).prepare()
    monkeypatch.setattr(Slow, "until", -1)
    before = Slow.packed
    slow = Slow(labels=[0, 1] * 40, size=16, cache=tmp_path)
    slow.prepare()
    assert Slow.packed - before == 80 - 48  # three parts of 16 were done
    whole = ready(tmp_path / "elsewhere", [0, 1] * 40)
    assert np.array_equal(slow.images, whole.images)
    assert slow.faces["hash"].tolist() == whole.faces["hash"].tolist()


def test_all_cores_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ready(tmp_path / "one", [0, 1, 2] * 50, colour=(70,))
    monkeypatch.setattr(pack, "CHUNK", 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    before = Drawn.packed
    parts = ready(tmp_path / "many", [0, 1, 2] * 50, colour=(70,))
    assert Drawn.packed == before  # other processes read
    assert np.array_equal(whole.images, parts.images)
    assert whole.faces["hash"].tolist() == parts.faces["hash"].tolist()
    assert parts.images.shape == (150, 3, 16, 16)


class Killed(Drawn):
    def read(self, row: Any) -> np.ndarray:
        if row.pixels == 30:
            os.kill(os.getpid(), 9)
        return super().read(row)


def test_a_killed_decoding_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "CHUNK", 8)
    with pytest.raises(DatasetError, match="a decoding process was killed"):
        Killed(labels=[0, 1] * 40, size=16, cache=tmp_path).plan()


def _pack_in_a_process(cache: str) -> None:
    Drawn(labels=[0, 1] * 200, size=16, cache=Path(cache)).prepare()


def test_two_processes_may_pack_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_pack_in_a_process, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "packs").iterdir())) == 1  # one pack, no temporary folder
    before = Drawn.packed
    _pack_in_a_process(str(tmp_path))
    assert Drawn.packed == before


def test_a_full_disk_is_an_error_and_the_pack_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pack, "_decode_part", full)
        with pytest.raises(DatasetError, match="No space left on device.*Free some space"):
            ready(tmp_path, [0, 1] * 10)
    assert [path.suffix for path in (tmp_path / "cache" / "packs").iterdir()] == [".partial"]
    assert len(ready(tmp_path, [0, 1] * 10).images) == 20


def test_an_unwritable_cache_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="EMOBENCH_CACHE"):
        Drawn(labels=[0, 1] * 10, size=16, cache=tmp_path / "file").prepare()


def test_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOBENCH_CACHE", "/somewhere")
    assert pack.default_cache() == Path("/somewhere")
    monkeypatch.delenv("EMOBENCH_CACHE")
    assert pack.default_cache() == Path.home() / ".cache" / "emobench"


# ---- balance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "counts"),
    [
        (Balance(), [100, 40, 10]),
        (Balance(undersample=0.4), [40, 40, 10]),
        (Balance(oversample=2.0), [100, 80, 20]),
        (Balance(oversample=2.0, undersample=0.6), [60, 60, 20]),  # never above the cap
        (Balance(oversample=2.5), [100, 100, 25]),
    ],
)
def test_balance_counts(balance: Balance, counts: list[int]) -> None:
    assert balance.counts(np.array([100, 40, 10])).tolist() == counts
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    rows = np.arange(150) + 1000
    drawn, turns = balance.draw(labels, rows, seed=0, epoch=0)
    assert not turns.any()
    assert np.bincount(labels[drawn - 1000]).tolist() == counts
    assert np.bincount(drawn - 1000).max() <= np.ceil(balance.oversample)


def test_a_large_class_gives_a_fresh_subset_each_epoch() -> None:
    labels, rows = np.repeat([0, 1], [100, 40]), np.arange(140)
    balance = Balance(undersample=0.4)
    first, second, again = (balance.draw(labels, rows, seed=0, epoch=epoch)[0] for epoch in (0, 1, 0))
    assert np.array_equal(first, again)
    of_first, of_second = set(first[first < 100]), set(second[second < 100])
    assert len(of_first) == len(of_second) == 40
    assert of_first != of_second
    assert set(first[first >= 100]) == set(range(100, 140))


def test_rotated_copies_fill_small_classes() -> None:
    balance = Balance(undersample=0.5, rotate_to=70, rotate_by=20.0)
    assert balance.counts(np.array([100, 40, 10, 0])).tolist() == [70, 70, 70, 0]
    labels, rows = np.repeat([0, 1, 2], [100, 40, 10]), np.arange(150)
    drawn, turns = balance.draw(labels, rows, seed=0, epoch=0)
    of = labels[drawn]
    assert np.bincount(of).tolist() == [70, 70, 70]
    assert set(turns) == {0.0, 20.0}
    assert [int((turns[of == k] > 0).sum()) for k in range(3)] == [0, 30, 60]  # each face itself, the others copies
    assert np.unique(drawn[turns == 0]).size == (turns == 0).sum()


def test_only_copies_are_rotated_and_the_split_comes_first(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0] * 60 + [1] * 20)
    recipe = Recipe(epochs=1, batch=16, rotate_to=48, augment=Augment.none())
    (batches,) = epochs(drawn, 1, recipe=recipe, seed=0)
    index = torch.cat([batch["index"] for batch in batches])
    assert (drawn.faces["split"][index.numpy()] == "train").all()
    images = torch.cat([batch["image"] for batch in batches])
    same = [bool((image.numpy() == drawn.images[row]).all()) for row, image in zip(index, images, strict=True)]
    labels = drawn.faces["label"][index.numpy()].to_numpy()
    assert all(same[k] for k in range(len(same)) if labels[k] == 0)
    assert (
        16 <= sum(same[k] for k in range(len(same)) if labels[k] == 1) <= 19
    )  # a copy may be turned by next to nothing
    assert (labels == 1).sum() == 48


def test_class_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 5
    drawn = ready(
        tmp_path, labels, split=(["train"] * 58 + ["val", "test"]) + ["train"] * 28 + ["val", "test"] * 3 + ["train"]
    )
    drawn.feed(recipe=Recipe(epochs=1, batch=8), seed=0)
    trained = drawn.faces.loc[drawn.faces["split"] == "train", "label"].to_numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=trained)
    np.testing.assert_allclose(drawn.class_weights(), expected, rtol=1e-6)
    assert drawn.class_weights().dtype == np.float32
    drawn.feed(recipe=Recipe(epochs=1, batch=8, undersample=0.5), seed=0)
    np.testing.assert_allclose(drawn.class_weights(), 59 / (3 * np.array([29, 28, 1])) * 58 / 59, rtol=1e-6)


def test_an_absent_class_weighs_nothing(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 0, 0, 1, 2, 1, 2], split=["train"] * 4 + ["val", "test", "test"])
    drawn.feed(recipe=Recipe(epochs=1, batch=2), seed=0)
    np.testing.assert_allclose(drawn.class_weights(), [4 / (2 * 3), 4 / 2, 0])


# ---- loaders ---------------------------------------------------------------------------------------------------------


def epochs(drawn: Drawn, n: int, **feed: Any) -> list[list[dict[str, torch.Tensor]]]:
    drawn.feed(**feed)
    loader = drawn.train_dataloader()
    batches = []
    for epoch in range(n):
        loader.sampler.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def test_a_batch_is_what_the_contract_says(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    recipe = Recipe(epochs=1, batch=16, augment=Augment.none())
    (batches,) = epochs(drawn, 1, recipe=recipe, seed=0)
    assert len(batches) == drawn.steps_per_epoch(recipe) == 96 // 16
    batch = batches[0]
    assert batch["image"].shape == (16, 3, 16, 16)
    assert (batch["image"].dtype, batch["emotions"].dtype) == (torch.uint8, torch.float32)
    assert batch["index"].dtype == torch.int64
    rows = batch["index"].numpy()
    assert np.array_equal(batch["image"].numpy(), np.repeat(drawn.images[rows], 3, axis=1))
    assert batch["emotions"].argmax(1).tolist() == drawn.faces["label"][rows].tolist()
    assert batch["emotions"].sum(1).tolist() == [1.0] * 16
    seen = torch.cat([batch["index"] for batch in batches]).numpy()
    assert len(set(seen)) == len(seen) == 96
    assert (drawn.faces["split"][seen] == "train").all()


def test_numbers_do_not_depend_on_workers_and_epochs_differ(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    runs = [epochs(drawn, 2, recipe=Recipe(epochs=1, batch=16), seed=3, workers=workers) for workers in (0, 1, 2)]
    for run in runs[1:]:
        for one, other in zip(chain(*runs[0]), chain(*run), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("image", "emotions", "index"))
    first, second = runs[0]
    assert not torch.equal(first[0]["index"], second[0]["index"])
    by_row = {int(row): image for b in first for row, image in zip(b["index"], b["image"], strict=True)}
    changed = [not torch.equal(by_row[int(r)], i) for b in second for r, i in zip(b["index"], b["image"], strict=True)]
    assert np.mean(changed) > 0.9  # the same face is augmented in another way
    other_seed = epochs(drawn, 1, recipe=Recipe(epochs=1, batch=16), seed=4)
    assert not torch.equal(other_seed[0][0]["index"], first[0]["index"])


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    epochs(drawn, 1, recipe=Recipe(epochs=1, batch=16), seed=3)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("batch", "steps", "size"), [(96, 1, 96), (50, 1, 50), (200, 1, 96), (16, 6, 16)])
def test_the_incomplete_batch_is_dropped_unless_it_is_the_only_one(
    tmp_path: Path, batch: int, steps: int, size: int
) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    (batches,) = epochs(drawn, 1, recipe=Recipe(epochs=1, batch=batch, augment=Augment.none()), seed=0)
    assert [len(b["index"]) for b in batches] == [size] * steps


def ranked(drawn: Drawn, world: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawn]:
    for rank in range(world):
        monkeypatch.setattr(Drawn, "_rank", lambda self, rank=rank: (rank, world))
        yield drawn


def test_ranks_share_out_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    alone = epochs(drawn, 1, recipe=Recipe(epochs=1, batch=32, augment=Augment.none()), seed=0)[0]
    recipe = Recipe(epochs=1, batch=16, augment=Augment.none())
    shared = [epochs(part, 1, recipe=recipe, seed=0)[0] for part in ranked(drawn, 2, monkeypatch)]
    for step, batch in enumerate(alone):
        both = torch.cat([shared[0][step]["index"], shared[1][step]["index"]])
        assert torch.equal(both, batch["index"])


def test_ranks_have_the_batches_that_one_process_would_accumulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same faces with the same augmentation, in the same order."""
    drawn = ready(tmp_path, [0, 1, 2] * 40)
    recipe = Recipe(epochs=1, batch=16)
    alone = epochs(drawn, 2, recipe=recipe, seed=0)[1]
    shared = [epochs(part, 2, recipe=recipe, seed=0)[1] for part in ranked(drawn, 2, monkeypatch)]
    for number, batch in enumerate(alone):
        mine = shared[number % 2][number // 2]
        assert torch.equal(mine["index"], batch["index"])
        assert torch.equal(mine["image"], batch["image"])


def test_ranks_count_each_validation_face_once_after_removing_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the batches of one process; where there are too few, one stands in once more and says so."""
    for count, lengths, repeated in (
        (13, [[13], [13]], [1]),
        (140, [[64, 12], [64, 64]], [1]),
        (64, [[64], [64]], [1]),
    ):
        drawn = ready(tmp_path, [0, 1] * 120, split=["train"] * 90 + ["val"] * count + ["test"] * (150 - count))
        alone = list(drawn.val_dataloader())
        parts = [list(part.val_dataloader()) for part in ranked(drawn, 2, monkeypatch)]
        monkeypatch.undo()
        assert [[len(batch["index"]) for batch in part] for part in parts] == lengths
        assert [rank for rank, part in enumerate(parts) for batch in part if "again" in batch] == repeated
        counted = sorted(b["index"].tolist() for part in parts for b in part if "again" not in b)
        assert counted == [batch["index"].tolist() for batch in alone]
        assert torch.cat([batch["index"] for batch in alone]).tolist() == list(range(90, 90 + count))


class Counted(list[dict[str, int]]):
    """A loader of numbered batches."""

    def __init__(self, count: int) -> None:
        super().__init__({"number": number} for number in range(count))


def test_the_batches_of_a_step_are_of_one_dataset() -> None:
    """What two processes see in a step, and what one accumulates, is of one dataset; left-over batches come last."""
    alone = Interleaved([Counted(5), Counted(6)], seed=3, place=None, together=2)  # type: ignore[list-item]
    shared = Interleaved([Counted(2), Counted(3)], seed=3, place=None)  # type: ignore[list-item]
    assert len(alone.order(0)) == len(alone) == 11
    assert alone.order(0)[:10].tolist() == np.repeat(shared.order(0), 2).tolist()
    assert alone.order(0)[10:].tolist() == [0]
    assert [batch["number"] for batch in alone if batch["part"] == 1] == list(range(6))


def test_evaluation_is_in_row_order_and_never_augmented(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 400)
    drawn.feed(recipe=Recipe(epochs=1, batch=100), seed=0)
    batches = list(drawn.test_dataloader())
    assert [len(batch["index"]) for batch in batches] == [100, 20]
    rows = torch.cat([batch["index"] for batch in batches]).numpy()
    assert np.array_equal(rows, np.flatnonzero(drawn.faces["split"] == "test"))
    assert np.array_equal(batches[0]["image"][:, :1].numpy(), drawn.images[rows[:100]])
    drawn.feed(recipe=Recipe(epochs=1, batch=8), seed=0)
    assert len(next(iter(drawn.val_dataloader()))["index"]) == 64


def test_permuted_labels_stay_in_their_split_and_spare_the_test(tmp_path: Path) -> None:
    drawn = ready(tmp_path, [0] * 300 + [1] * 200 + [2] * 100)

    def labels(split: str, **feed: Any) -> np.ndarray:
        drawn.feed(recipe=Recipe(epochs=1, batch=480, augment=Augment.none()), **feed)
        loader = getattr(drawn, f"{split}_dataloader")()
        batch = {key: torch.cat([b[key] for b in loader]) for key in ("index", "emotions")}
        return batch["emotions"].argmax(1)[batch["index"].argsort()].numpy()

    for split in ("train", "val"):
        true, permuted = labels(split, seed=1), labels(split, seed=1, permuted=True)
        assert np.array_equal(np.bincount(true), np.bincount(permuted))
        assert 0.2 < np.mean(true != permuted) < 0.8
        assert np.array_equal(permuted, labels(split, seed=1, permuted=True))
        assert not np.array_equal(permuted, labels(split, seed=2, permuted=True))
    assert np.array_equal(labels("test", seed=1), labels("test", seed=1, permuted=True))


class Probe(L.LightningModule):
    """Records which faces each step trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 16 * 16, 3)
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist()))
        logits = self.linear(batch["image"].flatten(1) / 255)
        return torch.nn.functional.cross_entropy(logits, batch["emotions"])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("seen", float(len(batch["index"])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Save(L.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.folder / f"before{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.folder / f"end{trainer.current_epoch}.ckpt")


def probed(
    drawn: Drawn, folder: Path, workers: int, resume: str | None = None, augment: Augment | None = None
) -> Probe:
    torch.manual_seed(0)
    probe = Probe()
    fresh = Drawn(**drawn.arguments)  # type: ignore[attr-defined]
    fresh.feed(recipe=Recipe(epochs=3, batch=16, augment=augment or Augment()), seed=0, workers=workers)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[] if resume else [Save(folder)],
    )
    trainer.fit(probe, datamodule=fresh, ckpt_path=str(folder / resume) if resume else None)
    return probe


STEPS_BEFORE = {"before0": 0, "2": 2, "7": 7, "8": 8, "end1": 8, "before8": 8, "before9": 9}  # each checkpoint


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_resumed_anywhere_ends_with_the_same_weights(tmp_path: Path, workers: int) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 30)
    drawn.arguments = {"labels": [0, 1, 2] * 30, "size": 16, "cache": tmp_path / "cache"}  # type: ignore[attr-defined]
    whole = probed(drawn, tmp_path, workers)
    assert len(whole.seen) == 12
    for resume in STEPS_BEFORE if workers == 0 else ("7",):
        again = probed(drawn, tmp_path, workers, f"{resume}.ckpt")
        done = STEPS_BEFORE[resume]
        assert len(again.seen) == 12 - done
        assert again.seen == whole.seen[-len(again.seen) :]
        assert torch.equal(again.linear.weight, whole.linear.weight)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("backend", ["albumentations", "batched"])
@pytest.mark.parametrize("colour", [(), (7,)])
def test_a_device_that_finishes_the_batches_gets_the_same_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: bool, backend: Any, colour: tuple[int, ...]
) -> None:
    """As on a GPU, where the pack lies on the device and no face passes through a loader."""
    labels = [0, 1, 2] * 30
    recipe = Recipe(epochs=1, batch=16, augment=Augment(backend=backend), rotate_to=40)
    drawn = ready(tmp_path, labels, colour=colour)
    (plain,) = epochs(drawn, 1, recipe=recipe, seed=0)
    plain_val = list(drawn.val_dataloader())
    monkeypatch.setattr(Drawn, "_on_device", lambda self: True)
    monkeypatch.setattr(datamodule, "RESIDENT_BYTES", 2**30 if resident else 0)
    (sent,) = epochs(drawn, 1, recipe=recipe, seed=0)
    assert ("image" in sent[0]) == (not resident or backend == "albumentations")
    sent_val = list(drawn.val_dataloader())
    assert ("image" in sent_val[0]) == (not resident)
    for one, other in zip([*plain, *plain_val], [*sent, *sent_val], strict=True):
        there = drawn.on_after_batch_transfer(other, 0)
        assert there["image"].shape[1] == 3
        assert all(torch.equal(one[key], there[key]) for key in ("image", "emotions", "index"))


def test_a_fit_with_the_faces_on_the_device_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ready(tmp_path, [0, 1, 2] * 30)
    drawn.arguments = {"labels": [0, 1, 2] * 30, "size": 16, "cache": tmp_path / "cache"}  # type: ignore[attr-defined]
    augment = Augment(backend="batched")
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    whole = probed(drawn, tmp_path / "one", 0, augment=augment)
    monkeypatch.setattr(Drawn, "_on_device", lambda self: True)
    again = probed(drawn, tmp_path / "other", 0, augment=augment)
    assert again.seen == whole.seen
    assert torch.equal(again.linear.weight, whole.linear.weight)


# ---- images ----------------------------------------------------------------------------------------------------------

RGB = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def saved(tmp_path: Path, picture: Image.Image, name: str = "face.png") -> Path:
    picture.save(tmp_path / name)
    return tmp_path / name


def test_rgba_is_shown_on_white(tmp_path: Path) -> None:
    alpha = np.full((9, 7, 1), 255, np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 128
    face = read_face(saved(tmp_path, Image.fromarray(np.concatenate([RGB, alpha], 2))))
    assert np.array_equal(face[:, 1:], RGB.transpose(2, 0, 1)[:, 1:])
    assert face[:, 0, 0].tolist() == [255] * 3
    np.testing.assert_allclose(face[:, 0, 1], RGB[0, 1] * (128 / 255) + 255 * (127 / 255), atol=1)


def test_palette_cmyk_one_bit_and_gray(tmp_path: Path) -> None:
    few = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(few.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_face(saved(tmp_path, few)), expected)
    cmyk = Image.new("CMYK", (7, 9), (0, 255, 255, 0))
    face = read_face(saved(tmp_path, cmyk, "face.tif"))
    assert (face[0] > 200).all()  # red, not its inverse
    assert (face[1:] < 60).all()
    bits = np.indices((9, 7)).sum(0) % 2 == 0
    assert np.array_equal(read_face(saved(tmp_path, Image.fromarray(bits)))[0], bits * np.uint8(255))
    assert np.array_equal(read_face(saved(tmp_path, Image.fromarray(RGB[..., 0]))), RGB[None, ..., 0])


def test_16_bit_is_rescaled(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 63).reshape(9, 7).astype(np.uint16)
    for name in ("face.png", "face.tif"):
        face = read_face(saved(tmp_path, Image.fromarray(values), name))
        assert np.array_equal(face[0], np.rint(values / 257))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    Image.fromarray(RGB).save(tmp_path / "face.png", exif=exif)
    assert np.array_equal(read_face(tmp_path / "face.png"), np.rot90(RGB, -1).transpose(2, 0, 1))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(side, side) + b"\0\0\0\0IDAT")
    with pytest.raises(RowError, match=r"huge\.png: .*pixels.* Scale the picture down"):
        read_face(path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.fromarray(np.repeat(RGB, 20, 0)), "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    (tmp_path / "text.jpg").write_bytes(b"hello")
    for name, reason in [
        ("cut", "truncated"),
        ("empty", "0 bytes"),
        ("page", "a web page"),
        ("text", "of no known image format"),
        ("missing", "No such file"),
    ]:
        with pytest.raises(RowError, match=rf"(?i){name}\.jpg: not an intact image \(.*{reason}"):
            read_face(tmp_path / f"{name}.jpg")


def test_nothing_is_written_but_the_cache(tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    Drawn(labels=[0, 1] * 10, size=16, cache=tmp_path / "cache").prepare()
    assert sorted(os.listdir(tmp_path)) == [*before, "cache"]
