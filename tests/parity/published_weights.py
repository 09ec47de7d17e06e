"""Networks of torchvision and timm with weights of their own, saved as their users save them, exported by Tallow from
these files, and run in ONNX Runtime beside the original in f64. Prints the largest difference over the largest logit.

    python published_weights.py path/to/tallow [network …]        # needs torch, torchvision, timm, onnxruntime, safetensors
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
import torchvision
from safetensors.torch import save_file

TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] + [f"efficientnet_b{i}" for i in range(8)]
TIMM = ["resnet18", "resnet50", "resnet152", *(f"efficientnet_b{i}" for i in range(6)),
        *(f"tf_efficientnet_b{i}" for i in range(6)), "efficientnet_lite0", "tf_efficientnet_lite0",
        "tf_efficientnet_lite4"]


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Batch normalisation with moments and affine parameters that differ from layer to layer."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.6, 1.4)
    return net.eval()


def difference(tallow: str, name: str, net: torch.nn.Module, size: int, suffix: str, folder: Path) -> float:
    weights, model = folder / f"weights{suffix}", folder / "model.onnx"
    if suffix == ".safetensors":
        save_file(net.state_dict(), weights)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, weights)
    subprocess.run([tallow, "export", "--model", name, "--weights", weights, "--size", str(size), "-o", model,
                    "--force"], check=True, capture_output=True)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net.double()(images.double()).numpy()
    logits = onnxruntime.InferenceSession(model).run(["logits"], {"images": images.numpy()})[0]
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def main() -> None:
    tallow, chosen = sys.argv[1], sys.argv[2:]
    networks = [(name, lambda name=name: getattr(torchvision.models, name)(weights=None)) for name in TORCHVISION]
    networks += [(f"timm/{name}", lambda name=name: timm.create_model(name)) for name in TIMM]
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, create) in enumerate(networks):
            if chosen and name not in chosen:
                continue
            torch.manual_seed(i)
            # An odd size: where TensorFlow's padding and PyTorch's differ.
            found = difference(tallow, name, randomised(create()), 97, [".safetensors", ".pth"][i % 2], Path(folder))
            print(f"{name:28} {found:.1e}", flush=True)


if __name__ == "__main__":
    main()
