"""All that a configuration may name, in one file: tones told by their height, a plain network."""

import torch
from torch import nn
from torch.utils.data import Dataset

import boundnas as bn


class Tones(Dataset):
    def __init__(self, first, number, noise):
        self.first, self.number, self.noise = first, number, noise

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        draw = torch.Generator().manual_seed(self.first + i)
        height = 1 + torch.rand(1, generator=draw)
        noise = self.noise * torch.randn(16, generator=draw)
        return torch.sin(height * torch.linspace(0, 6, 16)) + noise, height


def tones(noise=0.1, seed=0):
    return bn.Data(Tones(0, 96, noise), test=Tones(500, 32, noise), name="tones", seed=seed)


def network():
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
    )


class Height(bn.tasks.Own):
    def __init__(self, unit="Hz"):
        loss = nn.functional.mse_loss
        score = {"score": lambda o, t: (o - t).abs().mean(1), "name": "error"}
        super().__init__(loss, loss, **score, unit=unit, lower_is_better=True)


class Energy(bn.cost.Cost):
    name, unit, per_unit = "energy", "pJ", 10

    def _polynomial(self, model):
        return 46 * bn.cost.MACs(model).polynomial


class Told(bn.Observer):
    def __init__(self, folder):
        self.path = folder / "told.txt"

    def step(self, row):
        self.path.write_text(str(row["step"]))
