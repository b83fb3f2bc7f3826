"""The language of a word: a family of networks by accuracy and MACs, from lists of words.

python examples/text_classification.py english.txt french.txt …   # one word a line
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import boundnas as bn
from boundnas import elastic

LENGTH, LETTERS = 12, " abcdefghijklmnopqrstuvwxyzàâäåæçèéêëíîïñóôöøùûüœß"


def letters(word):
    """Numbers of a word's letters, filled up with blanks."""
    return np.array([LETTERS.find(c) for c in word.ljust(LENGTH)])


def known(line):
    return 3 <= len(line) <= LENGTH and all(c in LETTERS[1:] for c in line)


class Net(bn.Supernet):
    """Embedded letters and two hidden layers."""

    def __init__(self, example, languages):
        super().__init__(example)
        first, second = (self.dimension(n, [8, 16, 32, 64]) for n in ("first", "second"))
        self.letters = nn.Embedding(len(LETTERS), 8)
        self.first = elastic.Linear(8 * LENGTH, first)
        self.second, self.head = elastic.Linear(first, second), elastic.Linear(second, languages)

    def forward(self, x, arch):
        x = self.first(self.letters(x).flatten(1), arch).relu()
        return self.head(self.second(x, arch).relu(), arch)


def main(*files, steps=2000, rounds=1):
    lists = [sorted(set(filter(known, Path(f).read_text().lower().split()))) for f in files]
    rows = [(letters(word), language) for language, words in enumerate(lists) for word in words]
    order = np.random.RandomState(0).permutation(len(rows))
    test, train = ([rows[i] for i in part] for part in np.split(order, [len(rows) // 5]))
    data = bn.Data(train, test=test, classes=[Path(f).stem for f in files], name="words")
    torch.manual_seed(0)
    settings = bn.TrainSettings(steps=steps, batch_size=32, learning_rate=0.05)
    run = bn.fit(Net(data.example, len(files)), data, cost_range=(1e3, 8e3), settings=settings)
    for n in bn.search(run, bn.SearchSettings(initial=8, rounds=rounds)).networks:
        print(f"{n.macs:6} MACs  {n.metric.name} {n.metric.shown(n.test)} on test data")


if __name__ == "__main__":
    main(*sys.argv[1:])
