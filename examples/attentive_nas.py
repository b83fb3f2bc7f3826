"""The search space of AttentiveNAS (Wang et al., 2021) on a folder with a folder per class.

python examples/attentive_nas.py photos
"""

import sys

import torch.nn.functional as F
from torch import nn

import boundnas as bn
from boundnas import elastic

STAGES = {  # widths, depths, expand ratios, stride, squeeze-and-excite
    "mb1": ((16, 24), (1, 2), (1,), 1, False),
    "mb2": ((24, 32), (3, 4, 5), (4, 5, 6), 2, False),
    "mb3": ((32, 40), (3, 4, 5, 6), (4, 5, 6), 2, True),
    "mb4": ((64, 72), (3, 4, 5, 6), (4, 5, 6), 2, False),
    "mb5": ((112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), 1, True),
    "mb6": ((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), 2, True),
    "mb7": ((216, 224), (1, 2), (6,), 1, True),
}


def eighths(channels):
    return max(8, (channels + 4) // 8 * 8)


def chain(*layers):
    return elastic.Stage(layers, len(layers))


def conv(inputs, outputs, kernel=1, stride=1):
    norm = elastic.BatchNorm2d(outputs, activation="swish")
    return chain(elastic.Conv2d(inputs, outputs, kernel, stride), norm)


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, expand, stride, se):
        super().__init__()
        hidden = inputs.map(lambda width, ratio: eighths(width * ratio), expand)
        layers = [] if expand.choices == (1,) else [conv(inputs, hidden)]
        layers.append(elastic.DepthwiseConv2d(hidden, kernel, stride))
        layers.append(elastic.BatchNorm2d(hidden, activation="swish"))
        if se:
            squeezed = hidden.map(lambda channels: eighths(channels // 4))
            layers.append(elastic.SqueezeExcite(hidden, squeezed=squeezed, gate="hardsigmoid"))
        layers += [elastic.Conv2d(hidden, outputs), elastic.BatchNorm2d(outputs)]
        self.layers, self.stride = chain(*layers), stride
        projection = None if inputs is outputs else elastic.Conv2d(inputs, outputs)
        self.shortcut = elastic.Shortcut(inputs, outputs, projection)

    def forward(self, x, arch):
        y = self.layers(x, arch)
        return self.shortcut(y, F.avg_pool2d(x, self.stride) if self.stride > 1 else x, arch)


class Head(nn.Module):
    def __init__(self, inputs, outputs, classes):
        super().__init__()
        self.mix, self.dropout = elastic.Linear(inputs, outputs, bias=False), elastic.Dropout(0.2)
        self.classifier = elastic.Linear(outputs, classes)

    def forward(self, x, arch):
        x = F.silu(self.mix(x.mean((2, 3)), arch))
        return self.classifier(self.dropout(x, arch), arch)


class AttentiveNAS(bn.Supernet):
    def __init__(self, classes=1000, image_size=224, sizes=(192, 224, 256, 288), stages=STAGES):
        super().__init__((3, image_size, image_size))
        size = self.dimension("resolution", sizes, "resolution")
        inputs = self.dimension("first.width", (16, 24))
        layers = [conv(3, inputs, 3, stride=2)]
        for name, (widths, depths, ratios, stride, se) in stages.items():
            width = self.dimension(f"{name}.width", widths)
            kernel = self.dimension(f"{name}.kernel", (3, 5), "kernel")
            expand = self.dimension(f"{name}.expand", ratios, "expand")
            blocks = [Block(inputs, width, kernel, expand, stride, se)]
            blocks += [Block(width, width, kernel, expand, 1, se) for _ in range(depths[-1] - 1)]
            layers.append(elastic.Stage(blocks, self.dimension(f"{name}.depth", depths, "depth")))
            inputs = width
        wide = inputs.map(lambda width: 6 * width)
        head = Head(wide, self.dimension("last.width", (1792, 1984)), classes)
        body = chain(*layers, conv(inputs, wide), head)
        self.body = elastic.Resized(body, size, mode="bicubic")

    def forward(self, x, arch):
        return self.body(x, arch)


def main(folder, steps=100_000, rounds=14, image_size=224, **space):
    data = bn.data.load("folder", folder=folder, image_size=image_size)
    model = AttentiveNAS(len(data.classes), image_size, **space)
    whole = bn.cost.MACs(model)(model.space.largest)
    settings = bn.TrainSettings(steps=steps, batch_size=32)
    run = bn.fit(model, data, cost_range=(whole / 10, whole), settings=settings)
    front = bn.search(run, bn.SearchSettings(initial=32, rounds=rounds))
    print(*front.networks, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
