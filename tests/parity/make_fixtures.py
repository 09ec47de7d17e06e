"""Writes fixtures/*.json: what torchvision, torch.optim and timm compute, for Tallow's tests to be held against.

Run with CPU builds of torch, torchvision, timm and numpy:  python tests/parity/make_fixtures.py [name ...]
where the names are those of `FIXTURES` below (all by default). Weights and inputs come from formula.py, so the files
hold results only. References are computed in f64; f32 results of the same network show what f32 itself loses.
"""
import json
import pathlib
import re
import sys

import torch
import torchvision
from torch import nn
from torchvision.models.efficientnet import efficientnet_b0

import cifar_resnets
import formula
import optimisers
import timm_names

HERE = pathlib.Path(__file__).parent / "fixtures"
VERSIONS = {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]}
RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
EFFICIENTNETS = [f"efficientnet_b{i}" for i in range(8)]
# Deep networks amplify: the deeper, the smaller the gain that keeps f32 within 5e-6 of f64.
GAIN = dict(zip(RESNETS + EFFICIENTNETS, [1.0, 1.0, 1.0, 0.9, 0.85, 1.35, 1.3, 1.3, 1.3, 1.25, 1.2, 1.2, 1.17]))
LITES = [f"efficientnet_lite{i}" for i in range(5)]
TIMM_GAIN = {"efficientnet_b0": 1.35, **dict.fromkeys(LITES, 1.1)}


def network(name: str, classes: int) -> nn.Module:
    if name in cifar_resnets.NAMES:
        return cifar_resnets.network(name, classes)
    if name.startswith("efficientnet_lite"):
        return timm_names.network(name, classes)
    return getattr(torchvision.models, name)(num_classes=classes)


def filled(name: str, classes: int) -> nn.Module:
    return formula.fill(network(name, classes), GAIN.get(name, 1.0))


def f32_list(tensor: torch.Tensor) -> list:
    """Nine significant digits, which give every f32 back."""
    return [[float(f"{v:.9g}") for v in row] for row in tensor.tolist()]


def logits() -> list:
    cases = [(name, 10, 2, h, w) for name in ("resnet18", "resnet50", "efficientnet_b0")
             for h, w in ((64, 64), (97, 97), (65, 80))]
    cases += [(name, 10, 2, 65, 80) for name in RESNETS + EFFICIENTNETS if name not in {c[0] for c in cases}]
    cases += [("resnet18", 1000, 1, 64, 64)]
    cases += [(name, 10, 2, h, w) for name in ("resnet18_cifar", "resnet20") for h, w in ((32, 32), (8, 8), (13, 30))]
    entries = [logits_of(filled(name, classes), name, GAIN.get(name, 1.0), classes, *size)
               for name, classes, *size in cases]
    for name in timm_names.TIMM:
        for height, width in ((64, 64), (65, 80)):
            net = timm_names.network(name, 10)  # also of efficientnet_b0
            formula.fill(net, TIMM_GAIN[name], timm_names.names(net))
            entries.append(logits_of(net, name, TIMM_GAIN[name], 10, 2, height, width) | {"tensorflow_form": True})
    return entries


def logits_of(net: nn.Module, name: str, gain: float, classes: int, batch: int, height: int, width: int) -> dict:
    x = formula.images(batch, height, width)
    net.eval()
    with torch.no_grad():
        single = net(x)
        double = net.double()(x.double())
    largest = double.abs().max()
    f32_error = ((single - double).abs().max() / largest).item()
    assert f32_error < 5e-6, (name, f32_error)
    if batch > 1:  # else a network that ignores its input would pass
        assert (double[0] - double[1]).abs().max() / largest > 5e-3, name
    return {
        "model": name, "classes": classes, "gain": gain, "batch": batch, "height": height, "width": width,
        "f32_relative_error": f32_error, "logits_f64": double.tolist(), "logits_f32": f32_list(single),
    }


def state_dicts() -> list:
    """Names and shapes of every tensor but the num_batches_tracked counters, in order, as `name d0xd1…` lines.

    Three lists are kept in full; of the others the count and the FNV-1a of the lines, each ended by a newline.
    """
    entries = []
    for name in RESNETS + EFFICIENTNETS + cifar_resnets.NAMES + LITES:
        with torch.device("meta"):
            net = network(name, 10 if name in cifar_resnets.NAMES else 1000)
        lite = name in LITES
        names = timm_names.names(net) if lite else {k: k for k in net.state_dict()}
        lines = [f"{names[k]} {'x'.join(map(str, v.shape))}" for k, v in net.state_dict().items()
                 if not k.endswith("num_batches_tracked")]
        text = "".join(line + "\n" for line in lines)
        norms = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
        (eps, momentum), = norms
        entries.append({
            "model": name,
            "parameters": sum(p.numel() for p in net.parameters()),
            "tensors": len(lines),
            "fnv1a64": f"{formula.fnv1a64(text.encode()):016x}",
            "lines": lines if name in ("resnet18", "resnet50", "efficientnet_b0") else None,
            "batch_norm_eps": eps,
            # timm builds for inference: momentum, dropout and stochastic depth are zero or PyTorch's default.
            "batch_norm_momentum": None if lite else momentum,
            "dropout": None if lite else max((m.p for m in net.modules() if isinstance(m, nn.Dropout)), default=0.0),
            "stochastic_depth": None if lite else [
                [k, m.stochastic_depth.p] for k, m in net.named_modules()
                if getattr(m, "use_res_connect", False) and m.stochastic_depth.p > 0],
        })
    return entries


def ten_digits(numbers: dict) -> dict:
    """Ten are enough to hold f32 results against."""
    return {k: float(f"{v:.10g}") for k, v in numbers.items()}


def layer_statistics() -> list:
    """Output statistics of named modules in eval mode, in execution order, to find the first layer that differs."""
    entries = []
    for name in ("resnet18", "resnet50", "efficientnet_b0"):
        net = filled(name, 10).double().eval()
        rows = []

        def record(module_name):
            def hook(_module, _inputs, y):
                numbers = {"mean": y.mean().item(), "std": y.std(correction=0).item(), "abs_max": y.abs().max().item()}
                rows.append({"name": module_name, "shape": list(y.shape), **ten_digits(numbers)})
            return hook

        for module_name, module in net.named_modules():
            leaf = isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d))
            if leaf or re.fullmatch(r"layer\d\.\d+|features\.\d+\.\d+(\.block\.\d)?", module_name):
                module.register_forward_hook(record(module_name))
        with torch.no_grad():
            net(formula.images(2, 65, 80).double())
        entries.append({"model": name, "classes": 10, "gain": GAIN[name], "batch": 2, "height": 65, "width": 80,
                        "layers": rows})
    return entries


def summary(tensor: torch.Tensor) -> dict:
    numbers = {"sum": tensor.sum().item(), "norm": tensor.norm().item(), "first": tensor.flatten()[0].item()}
    return ten_digits(numbers)


def train_step() -> list:
    """One step of SGD in train mode: loss, gradients, running statistics, parameters after it, and the next loss."""
    cifar = filled("resnet18_cifar", 10)
    mobile = formula.fill(efficientnet_b0(num_classes=10, dropout=0.0, stochastic_depth_prob=0.0), 1.35)
    targets = torch.tensor([3, 0, 7, 1])
    entries = []
    for name, net, size, gain in (("resnet18_cifar", cifar, 32, 1.0), ("efficientnet_b0", mobile, 64, 1.35)):
        loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
        x = formula.images(4, size, size)
        start = {k: v.clone() for k, v in net.state_dict().items()}
        net.train()
        single = loss_of(net(x), targets)
        single.backward()
        single_gradients = {k: p.grad.double() for k, p in net.named_parameters()}

        net.load_state_dict(start)
        net.double().train().zero_grad()
        x = x.double()
        sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        loss = loss_of(net(x), targets)
        sgd.zero_grad()
        loss.backward()
        gradients = {k: p.grad.clone() for k, p in net.named_parameters()}
        total = torch.stack([g.norm() for g in gradients.values()]).norm()
        # Relative to the whole: a bias that the next batch norm takes out again has gradient 0 itself.
        worst = max(((single_gradients[k] - g).norm() / total).item() for k, g in gradients.items())
        sgd.step()
        state = net.state_dict()
        entries.append({
            "model": name, "classes": 10, "gain": gain, "batch": 4, "height": size, "width": size,
            "targets": targets.tolist(), "label_smoothing": 0.1, "dropout": 0.0, "stochastic_depth": 0.0,
            "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "weight_decay_on": "all parameters",
            "loss": loss.item(), "loss_f32_relative_error": abs(single.item() / loss.item() - 1),
            "gradient_f32_error_over_norm": worst,
            "gradient_norm": total.item(),
            "gradients": {k: summary(g) for k, g in gradients.items()},
            "running": {k: summary(v) for k, v in state.items() if "running_" in k},
            "parameters_after": {k: summary(p.detach()) for k, p in net.named_parameters()},
            "next_loss": loss_of(net(x), targets).item(),
        })
    return entries


FIXTURES = {
    "logits": logits,
    "state_dicts": state_dicts,
    "layer_statistics": layer_statistics,
    "train_step": train_step,
    "optimisers": optimisers.cases,
}


def main(names):
    torch.manual_seed(0)
    HERE.mkdir(exist_ok=True)
    for name in names or FIXTURES:
        entries = FIXTURES[name]()
        rows = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
        path = HERE / f"{name}.json"
        path.write_text(f'{{"made_with":{json.dumps(VERSIONS)},\n"cases":[\n{rows}\n]}}\n')
        print(f"{path.name}: {len(entries)} cases, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
