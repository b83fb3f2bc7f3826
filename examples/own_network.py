"""ResNet-18 as torchvision has it, made a family of networks for a folder of images.

    python examples/own_network.py photos

The folder has a folder of images per class.
"""

import sys

import torchvision

import boundnas as bn


def main(folder, steps=2000, rounds=14, size=64):
    data = bn.data.load("folder", folder=folder, image_size=size)
    net = torchvision.models.resnet18(num_classes=len(data.classes))  # with weights where there are
    model = bn.elasticize(net, data.example[None])
    whole = bn.cost.MACs(model)(model.space.largest)
    settings = bn.TrainSettings(steps=steps, batch_size=32)
    run = bn.fit(model, data, cost_range=(whole / 20, whole / 2), settings=settings)
    front = bn.search(run, bn.SearchSettings(initial=32, rounds=rounds))
    print(*front.networks, sep="\n")
    bn.export(bn.extract(model, front.best(macs=whole / 4).arch), "quarter.onnx")


if __name__ == "__main__":
    main(sys.argv[1])
