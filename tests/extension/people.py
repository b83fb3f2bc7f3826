"""Data of one's own, in one file: people by a face of 6 numbers and by words, as a dict."""

import numpy as np
import torch
from torch.utils.data import Dataset

from boundnas import Data


class People(Dataset):
    """Inputs are dicts of tensors; in training the face is drawn noisy, by numpy's generator."""

    def __init__(self, first, number, noise=0.0):
        self.first, self.number, self.noise = first, number, noise

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        person = np.random.RandomState(self.first + i)  # of its own: the same person every time
        age = person.uniform(0, 80)
        face = person.randn(6) * 0.3 + age / 40 - 1
        words = person.randint(0, 4, 5) + (age > 40)
        face = face + self.noise * np.random.randn(6)
        return {"face": face, "words": torch.tensor(words)}, age


def people(workers=0):
    """200 people to train on, 20 of them held out for validation, and 60 for the test."""
    return Data(
        People(0, 200, noise=0.1),
        plain=People(0, 200),
        test=People(1000, 60),
        name="people",
        workers=workers,
    )
