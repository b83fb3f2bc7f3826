"""The language of a word, from Debian's lists of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

import boundnas as bn
from boundnas import elastic
from boundnas.errors import DataError
from studies.jobs.problem import Array, Job, Options, Samples

FOLDER = Path("/usr/share/dict")
LISTS = (
    "american-english",
    "danish",
    "dutch",
    "french",
    "italian",
    "ngerman",
    "polish",
    "portuguese",
    "spanish",
    "swedish",
)
LENGTH, LETTERS = 12, " abcdefghijklmnopqrstuvwxyzàáâãäåæçèéêëìíîïñòóôõöøùúûüąćęłńœśźżß"
WORDS = {"train": 2000, "validation": 300, "test": 500}
"""Words of each language."""
MANY = {"train": 4000, "validation": 600, "test": 1000}
"""The same for a transformer, which a comparison of whole trainings is made with."""


class Net(bn.Supernet):
    """Embedded letters and two hidden layers."""

    def __init__(self, data: bn.Data, options: Options) -> None:
        super().__init__(data.example)
        first, second = (self.dimension(name, options[name]) for name in ("first", "second"))
        self.letters = nn.Embedding(len(LETTERS), 8)
        self.first = elastic.Linear(8 * LENGTH, first)
        self.second, self.head = elastic.Linear(first, second), elastic.Linear(second, len(LISTS))

    def forward(self, x: Tensor, arch: bn.Architecture) -> Tensor:
        """A logit for each language."""
        x = self.first(self.letters(x).flatten(1), arch).relu()
        return self.head(self.second(x, arch).relu(), arch)


def known(word: str) -> bool:
    """Whether a word has 3 to 12 letters and nothing else."""
    return 3 <= len(word) <= LENGTH and all(c in LETTERS[1:] for c in word)


def text(path: Path) -> str:
    """What a list holds, in UTF-8 or Latin-1; some are in the one, some in the other."""
    raw = path.read_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@cache
def lists() -> tuple[tuple[str, ...], ...]:
    """Words of each language in lower case, without those that stand in two lists.

    Raises:
        DataError: A list is missing.
    """
    missing = [name for name in LISTS if not (FOLDER / name).exists()]
    if missing:
        raise DataError(f"{FOLDER} lacks {', '.join(missing)}; install Debian's packages of these")
    sets = [set(filter(known, text(FOLDER / name).lower().splitlines())) for name in LISTS]
    often = Counter(word for words in sets for word in words)
    return tuple(tuple(sorted(w for w in words if often[w] == 1)) for words in sets)


def numbers(words: Array) -> Array:
    """Numbers of the letters of words, filled up with blanks, shape ``(N, LENGTH)``."""
    return np.array([[LETTERS.index(c) for c in word.ljust(LENGTH)] for word in words.tolist()])


def sample(seed: int, number_of: Mapping[str, int] = WORDS) -> Samples:
    """As many words of every language, drawn without repetition, by the numbers of their letters.

    Args:
        seed: Of the drawing.
        number_of: Words of each language, by split.
    """
    draw = np.random.default_rng(seed)
    chosen = [
        np.array(
            [words[i] for i in draw.choice(len(words), sum(number_of.values()), replace=False)]
        )
        for words in lists()
    ]
    inputs, targets, first = {}, {}, 0
    for split, number in number_of.items():
        inputs[split] = numbers(np.concatenate([c[first : first + number] for c in chosen]))
        targets[split] = np.arange(len(LISTS)).repeat(number)
        first += number
    return Samples(inputs, targets)


def many(seed: int) -> bn.Data:
    """Data of a comparison: 40,000 words to train on, 6,000 to choose by, 10,000 to report."""
    return sample(seed, MANY).data("words")


def bayes(samples: Samples, seed: int) -> dict[str, float]:
    """Naive Bayes of runs of 1 to 4 letters, its smoothing chosen on validation."""
    spelt = {s: ["".join(LETTERS[c] for c in row) for row in x] for s, x in samples.inputs.items()}
    found = []
    for alpha in (1.0, 0.1, 0.01):
        model = make_pipeline(
            CountVectorizer(analyzer="char_wb", ngram_range=(1, 4)), MultinomialNB(alpha=alpha)
        ).fit(spelt["train"], samples.targets["train"])
        found.append([model.score(spelt[s], samples.targets[s]) for s in ("validation", "test")])
    return {"naive Bayes of letters": float(max(found, key=lambda score: score[0])[1])}


JOBS = {
    "words": Job(
        samples=sample,
        net=Net,
        options=dict.fromkeys(("first", "second"), (8, 16, 32, 64)),
        task=bn.tasks.Classification(),
        train=bn.TrainSettings(steps=2000, batch_size=64, learning_rate=0.1, ghost_fraction=1),
        cost_range=(1e3, 1e4),
        baselines=bayes,
    )
}
