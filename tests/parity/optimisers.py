"""Trajectories of torch's and timm's optimisers, an average of weights, a clipped gradient and the loss, in f64."""
import torch
from timm.optim import RMSpropTF
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

START = [1.0, -2.0, 0.5, 3.0, -0.25, 0.0]
GRADIENTS = [
    [0.1, -0.2, 0.3, -0.4, 0.5, 0.0],
    [0.2, 0.1, -0.3, 0.4, 0.6, -0.01],
    [-0.7, 0.15, 0.05, 1.5, -0.5, 0.02],
    [0.3, -0.25, 2.5, -0.75, 0.125, 0.0],
    [1e-4, 0.5, -0.1, 0.2, -3.0, 0.001],
]
# The rate moves, because where it enters (before or after the momentum buffer) is what the optimisers differ in.
RATES = [0.1, 0.05, 0.05, 0.02, 0.2]

OPTIMISERS = [
    ("sgd", torch.optim.SGD, {"momentum": 0.0, "weight_decay": 0.01}),
    ("sgd_momentum", torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    ("sgd_nesterov", torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}),
    ("rmsprop_tf", RMSpropTF, {"alpha": 0.9, "momentum": 0.9, "eps": 1e-3, "weight_decay": 1e-5}),
    ("rmsprop_tf_no_momentum", RMSpropTF, {"alpha": 0.95, "momentum": 0.0, "eps": 1e-3, "weight_decay": 0.0}),
]


def trajectory(make, settings) -> list:
    """The six values after each of the five steps."""
    p = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimiser = make([p], lr=RATES[0], **settings)
    values = []
    for rate, gradient in zip(RATES, GRADIENTS):
        optimiser.param_groups[0]["lr"] = rate
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        values.append(p.detach().tolist())
    return values


def average(decay: float, path: list) -> list:
    """torch's exponential moving average of a trajectory: it starts as the starting values."""
    net = nn.Linear(6, 1, bias=False).double()
    net.weight.data[0] = torch.tensor(START)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay))
    ema.update_parameters(net)
    values = []
    for step in path:
        net.weight.data[0] = torch.tensor(step, dtype=torch.float64)
        ema.update_parameters(net)
        values.append(ema.module.weight.data[0].tolist())
    return values


def clipped(max_norm: float) -> dict:
    """Clipping of two parameters by their common norm."""
    parameters = [nn.Parameter(torch.zeros(6, dtype=torch.float64)) for _ in range(2)]
    for p, gradient in zip(parameters, GRADIENTS[2:]):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return {"name": "clip_grad_norm", "max_norm": max_norm, "gradients": GRADIENTS[2:4], "norm": norm.item(),
            "clipped": [p.grad.tolist() for p in parameters]}


def cross_entropy(smoothing: float) -> dict:
    """Mean loss over three samples of five classes and its gradient, with logits that overflow a naive exponential."""
    logits = torch.tensor([[1.0, -2.0, 0.5, 3.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5], [-1000.0, 0.0, 1000.0, 999.0, 5.0]],
                          dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([3, 0, 2])
    loss = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    loss.backward()
    return {"name": "cross_entropy", "label_smoothing": smoothing, "logits": logits.tolist(), "targets": targets.tolist(),
            "loss": loss.item(), "gradient": logits.grad.tolist()}


def cases() -> list:
    entries = [{"name": name, "settings": settings, "start": START, "rates": RATES, "gradients": GRADIENTS,
                "values": trajectory(make, settings)} for name, make, settings in OPTIMISERS]
    path = entries[1]["values"]
    entries += [{"name": "ema", "decay": decay, "start": START, "parameters": path, "values": average(decay, path)}
                for decay in (0.9, 0.999)]
    entries += [clipped(0.5), clipped(10.0), cross_entropy(0.0), cross_entropy(0.1)]
    return entries
