"""timm's EfficientNets under the names Tallow has for their tensors (torchvision's)."""
import re

import timm
from torch import nn

LITE = {f"efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)}
TIMM = {**LITE, "efficientnet_b0": "tf_efficientnet_b0"}
# A layer of a block: its place in torchvision's `block`, counted from the end, and in the convolution-norm pair.
PLAIN = {"conv_dw": "block.0.0", "bn1": "block.0.1", "se": "block.1", "conv_pw": "block.-1.0", "bn2": "block.-1.1"}
INVERTED = {"conv_pw": "block.0.0", "bn1": "block.0.1", "conv_dw": "block.1.0", "bn2": "block.1.1", "se": "block.2",
            "conv_pwl": "block.-1.0", "bn3": "block.-1.1"}


def network(name: str, classes: int) -> nn.Module:
    """TensorFlow's form of a network: SAME padding, batch norm's eps 1e-3."""
    return timm.create_model(TIMM[name], num_classes=classes)


def names(net: nn.Module) -> dict:
    """Tallow's name of every tensor of the state dict, by timm's."""
    outer = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": f"features.{len(net.blocks) + 1}.0",
             "bn2": f"features.{len(net.blocks) + 1}.1", "classifier": "classifier.1"}
    result = {}
    for key in net.state_dict():
        match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)", key)
        if match is None:
            module, suffix = key.split(".")
            result[key] = f"{outer[module]}.{suffix}"
            continue
        stage, repeat, layer, suffix = match.groups()
        block = net.blocks[int(stage)][int(repeat)]
        gated = not isinstance(block.se, nn.Identity)
        places, last = (PLAIN, 1) if not hasattr(block, "conv_pwl") else (INVERTED, 2)
        place = places[layer].replace("-1", str(last + gated))
        suffix = suffix.replace("conv_reduce", "fc1").replace("conv_expand", "fc2")
        result[key] = f"features.{int(stage) + 1}.{repeat}.{place}.{suffix}"
    return result
