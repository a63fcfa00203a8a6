"""Values of a suite that are of another kind than meant, lists that name one thing twice, numbers out of range.

Every key of a suite is set to each of many wrong values: each is refused before anything starts, with the key.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY

from emobench.errors import EmobenchError, SuiteError
from emobench.suite.expand import expand
from emobench.suite.file import load

SUITE = (
    TINY
    + """
[model.mean]
class = "ensemble"
needs = { members = ["resnet18"] }

[trainer]
precision = "32-true"

[evaluation]
per_emotion = 10

[wandb]
mode = "offline"
"""
)
WRONG = ("-1.5", '["x", "x"]', "[[1]]", "{ x = [] }", "nan", "1e400", "1979-05-27T07:32:00Z")
KEYS = (
    "seeds", "data", "model", "trainer", "panel", "reader", "evaluation", "wandb", "plugins",
    "data.synthetic-plain", "data.synthetic-plain.size", "data.synthetic-plain.class", "data.synthetic-plain.train",
    "data.synthetic-plain.optional",
    "model.resnet18", "model.resnet18.class", "model.resnet18.needs", "model.resnet18.on", "model.resnet18.train_on",
    "model.resnet18.seeds", "model.resnet18.trainer", "model.resnet18.optional", "model.resnet18.width",
    "model.resnet18.epochs", "model.resnet18.augment", "model.resnet18.weights", "model.resnet18.lr",
    "model.mean.needs", "model.mean.needs.members", "model.mean.class",
    "trainer.precision", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "trainer.limit_train_batches",
    "trainer.limit_val_batches", "trainer.accumulate_grad_batches", "trainer.deterministic", "trainer.strategy",
    "evaluation.fidelity", "evaluation.per_emotion", "evaluation.identity", "evaluation.lpips",
    "wandb.mode", "wandb.project", "wandb.entity",
)  # fmt: skip


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize("key", KEYS)
def test_every_key_refuses_what_does_not_fit(suite: Path, key: str) -> None:
    for value in WRONG:
        with pytest.raises(EmobenchError) as raised:
            expand(load(suite, [f"{key}={value}"], name="mine"), suite.parent)
        words = key.replace(".", " ").split()
        assert any(word in str(raised.value) for word in (words[-1], *words[:1])), (key, value, str(raised.value))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.mean.needs=3", r'\[model.mean\]: needs = 3 is no table such as { guide = "vgg16" }'),
        ("model.resnet18.class=5", r'\[model.resnet18\]: class = 5 is no text such as "resnet18"'),
        ("data.synthetic-plain.class=5", r'\[data.synthetic-plain\]: class = 5 is no text such as "fer2013"'),
        ("model.resnet18.train_on=[1]", "train_on: unknown dataset '1'"),
        ("model.mean.needs.members=7", 'members = 7 is no row such as "vgg16", and no list of rows'),
        ('model.mean.needs.members=["resnet18", "resnet18"]', "names resnet18 2 times; name each row once"),
        ("seeds=[0, 0, 0]", r"seeds = \[0, 0, 0\]: names 0 3 times; name each once. It is written as seeds = \[0, 1"),
        ("seeds=[-1]", "seeds.0 = -1: Input should be greater than or equal to 0"),
        ("seeds=[1719403000000]", "seeds.0 = 1719403000000: Input should be less than 4294967296"),
        ("seeds=[1979-05-27]", "seeds.0 = datetime.date"),
        ("seeds=[0.0]", "seeds.0 = 0.0: Input should be a valid integer"),
        ("seeds=[true]", "seeds.0 = True: Input should be a valid integer"),
        ("seeds=3", r"seeds = 3: Input should be a valid list. It is written as seeds = \[0, 1, 2\]"),
        ("model.resnet18.seeds=[false]", "unknown seed 'False'"),
        ('panel=["vit", "vit"]', "names vit 2 times"),
        ('panel="vit"', "panel = 'vit': Input should be a valid list. It is written as panel = "),
        ('model.resnet18.train_on=["synthetic-plain", "synthetic-plain"]', "names synthetic-plain 2 times"),
        ('model.resnet18.on=["synthetic-plain", "synthetic-plain"]', "names synthetic-plain 2 times"),
        ("evaluation.per_emotion=1e400", "per_emotion = inf"),
        ("trainer.limit_val_batches=0", "limit_val_batches = 0 leaves nothing to do"),
        ("trainer.limit_val_batches=0.0", "limit_val_batches = 0.0 leaves nothing to do"),
        ("trainer.limit_train_batches=0", "limit_train_batches = 0 leaves nothing to do"),
        ("trainer.devices=0", "devices = 0 leaves nothing to do"),
        ("trainer.devices=-1", "devices = -1 is another number on each machine, and with it another global batch"),
        ('trainer.devices="auto"', "'auto' is another number .* Write the number, such as devices = 2"),
        ("model.resnet18.trainer.devices=-1", r"\[model.resnet18\] trainer: devices = -1 is another number on each"),
        ('trainer.devices="2"', "devices = '2' is text; it is a number such as 2, without quotes"),
        ("trainer.num_nodes=2", "num_nodes = 2, and a cell runs on one machine. Leave it out; more machines run"),
        ("trainer={ two = { devices = 2, num_nodes = 2 } }", r"\[trainer.two\]: num_nodes = 2, and a cell runs on one"),
        ("model.resnet18.trainer.num_nodes=2", r"\[model.resnet18\] trainer: num_nodes = 2, and a cell runs on one"),
        (
            "trainer.check_val_every_n_epoch=2",
            "check_val_every_n_epoch is set by emobench; use nothing: the best epoch",
        ),
        ('trainer.plugins="x"', r"\[trainer\]: plugins is set by emobench; use nothing: emobench brings the one"),
        ('model.resnet18.trainer.plugins=["x"]', r"\[model.resnet18\] trainer: plugins is set by emobench"),
        ("model.resnet18.trainer.check_val_every_n_epoch=2", "check_val_every_n_epoch is set by emobench"),
        ("trainer.strategy='fsdp'", "strategy = 'fsdp' is no copy of the whole network on each device"),
        (
            "model.resnet18.trainer.strategy='deepspeed_stage_2'",
            r"trainer of \[model.resnet18\]: strategy = 'deepspeed",
        ),
        ("trainer.strategy='ddp_spawn'", "starts processes of its own, and emobench starts one a device"),
        ("trainer={ devices = 2, sync_batchnorm = true }", "sync_batchnorm = true normalises by the faces of all dev"),
        ("trainer.precision='half'", "precision = 'half' does not fit"),
        ("model.resnet18.width=99999999999999999999", "its network cannot be built"),
        ("model.resnet18.optional='false'", "optional = 'false' is no yes or no such as true"),
    ],
)
def test_what_is_wrong_is_said_with_an_example(suite: Path, override: str, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        expand(load(suite, [override], name="mine"), suite.parent)


@pytest.mark.slow
def test_lightnings_own_options_are_taken(suite: Path) -> None:
    for override in (
        "trainer.devices=2", "trainer.devices=[0, 1]", "trainer.precision=16",
        "trainer.limit_val_batches=0.5", "trainer.limit_val_batches=3", "trainer.gradient_clip_val=1.0",
        "trainer.deterministic=true", 'trainer.accelerator="cpu"', 'trainer.strategy="ddp"',
    ):  # fmt: skip
        assert expand(load(suite, [override], name="mine"), suite.parent).cells


def test_a_mark_of_the_encoding_is_read(suite: Path) -> None:
    plain = load(suite)
    suite.write_bytes(b"\xef\xbb\xbf" + suite.read_bytes())
    assert load(suite) == plain
