"""A cost of one's own from start to end: networks of digits by the energy of one image.

    python examples/own_cost.py FOLDER

Stopped and started again it goes on. The energy is that of 45 nm hardware, in picojoules
(Horowitz, ISSCC 2014): 4.6 for a multiply-accumulate in float32, 640 to fetch a weight from DRAM.
"""

import sys
from pathlib import Path

import torch

import boundnas as bn
from boundnas.report import write_report
from boundnas.store.folder import RunFolder


class Energy(bn.cost.Cost):
    """Tenths of a picojoule for one image, every weight fetched once."""

    name, unit, per_unit = "energy", "nJ", 10_000

    def _polynomial(self, model):
        macs, weights = bn.cost.MACs(model), bn.cost.Parameters(model)
        return 46 * macs.polynomial + 6400 * weights.polynomial


def main(folder: Path) -> bn.FrontNetwork:
    """Train, search, report and export; gives the best network inside the range."""
    torch.manual_seed(0)  # of the initial weights
    stages = [bn.models.ResNetStage((4, 8, 16), depth=(1, 2))]
    model = bn.models.ResNet((4, 8, 16), stages, input_shape=(1, 8, 8))
    energy = Energy(model)
    smallest, largest = energy.reach
    run = bn.fit(
        model,
        bn.data.digits(),
        cost=energy,
        cost_range=(1.2 * smallest, 0.8 * largest),
        settings=bn.TrainSettings(steps=12, batch_size=32, checkpoint_every=4),
        folder=RunFolder.create(folder, "name: energy\n"),
    )
    search = bn.SearchSettings(initial=8, rounds=0, calibration_images=128)
    best = bn.search(run, search).best(energy=0.8 * largest)
    bn.export(bn.extract(model, best.arch), folder / "best.onnx")
    write_report(folder)
    return best


if __name__ == "__main__":
    network = main(Path(sys.argv[1]))
    print(f"{network.costs['energy'] / 1e4:.1f} nJ, {network.metric.shown(network.test)} on test")
