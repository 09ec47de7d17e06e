"""ResNets for small images, of torchvision's blocks: 3x3 stem, no max pool."""
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

# Block, blocks of each stage, width of the first stage.
SPECS = {
    "resnet18_cifar": (BasicBlock, [2, 2, 2, 2], 64), "resnet34_cifar": (BasicBlock, [3, 4, 6, 3], 64),
    "resnet50_cifar": (Bottleneck, [3, 4, 6, 3], 64), "resnet101_cifar": (Bottleneck, [3, 4, 23, 3], 64),
    "resnet152_cifar": (Bottleneck, [3, 8, 36, 3], 64),
    **{f"resnet{6 * n + 2}": (BasicBlock, [n] * 3, 16) for n in (3, 5, 7, 9, 18)},
}
NAMES = list(SPECS)


class CifarResNet(nn.Module):
    def __init__(self, block, layers, planes, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, planes, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        width = planes
        for stage, repeats in enumerate(layers):
            blocks = []
            for repeat in range(repeats):
                stride = 2 if stage > 0 and repeat == 0 else 1
                out = planes * 2**stage * block.expansion
                projection = None
                if stride != 1 or width != out:
                    projection = nn.Sequential(conv1x1(width, out, stride), nn.BatchNorm2d(out))
                blocks.append(block(width, planes * 2**stage, stride, projection))
                width = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(layers)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def network(name: str, classes: int) -> nn.Module:
    return CifarResNet(*SPECS[name], classes)
