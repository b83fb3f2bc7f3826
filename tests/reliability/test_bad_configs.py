"""Row 8: a malformed configuration gets one answer, with every fault, and nothing is created."""

import random

from tests.test_cli import call
from tests.test_config import SHIPPED, VALID, cases, check_form, edited

from boundnas.config import read_config
from boundnas.errors import ConfigError

SIGNS = "[]{}:,-?&*!|>'\"%@`#~ x1.\t\u2028\x85\ufeff"
VALUES = ("", "null", "yes", "-1", "1e400", "nan", "[]", "{}", "[1, a]", "text", "!!int 7", "*a")


def mangled(text, rng):
    """The text with up to four of its lines lost, doubled, shifted, misspelt or given a value."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        line, cut = lines[at], rng.randrange(len(lines[at]) + 1)
        key, colon, _ = line.partition(":")
        lines[at : at + 1] = rng.choice(
            [
                [],
                [line, line],
                [" " * rng.randint(1, 3) + line],
                [line[:cut] + line[cut + 1 :]],
                [line[:cut] + rng.choice(SIGNS) + line[cut:]],
                [f"{key}{colon} {rng.choice(VALUES)}"],
            ]
        )
    return "\n".join(lines)


def is_malformed(text, path):
    path.write_text(text)
    try:
        read_config(path)
    except ConfigError:
        return True
    return False


def test_every_fault_is_answered_once_and_creates_nothing(tmp_path, monkeypatch, full, figure):
    monkeypatch.chdir(tmp_path)
    path, rng = tmp_path / "run.yaml", random.Random(0)
    texts = []
    for case in list(cases())[:: 1 if full else 10]:
        text = VALID
        for old, new in case.values[0]:
            text = edited(text, old, new)
        texts.append(text)
    written = [VALID, *(each.read_text() for each in SHIPPED)]
    while len(texts) < (1000 if full else 100):
        if is_malformed(text := mangled(rng.choice(written), rng), path):
            texts.append(text)
    for text in texts:
        path.write_text(text)
        answer = call(rng.choice(("run", "train")), "run.yaml")
        assert answer.exit_code == 2, text
        assert not answer.stdout
        name, _, message = answer.stderr.removesuffix("\n").partition(": ")
        assert name == "ConfigError"
        check_form(message)
        assert [each.name for each in tmp_path.iterdir()] == ["run.yaml"]
    figure(f"{len(texts):,} malformed configurations, each answered, nothing created")
