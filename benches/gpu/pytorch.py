#!/usr/bin/env python3
"""PyTorch's half of the GPU benchmark: the same networks, images, optimiser and lines of JSON as tallow-gpu-bench.

    pytorch.py train   [--networks …] [--batch …] [--precision bf16] [--mode eager|compile] [--device cuda:0|cpu]
    pytorch.py profile --network resnet50 --batch 128

Channels last, autocast (f32 weights), SGD with momentum in its fused form, gradients set to None, cuDNN's algorithms
measured (`cudnn.benchmark`): what PyTorch's own guide to performance asks for.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torchvision

PRECISIONS = ("f32", "tf32", "f16", "bf16")
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
# Name: classes, size, size in --quick.
NETWORKS = {
    "resnet50": (1000, 224, 32),
    "efficientnet_b0": (1000, 224, 32),
    "resnet18_cifar": (10, 32, 16),
}
# Multiply-accumulates of a forward pass of one image at the full size, as `tallow summary` counts them, are taken from
# Tallow's lines by `run`; here only images/s and the matrix product are measured.
LARGEST_BATCH = 1 << 16


def network(name, classes):
    if name == "resnet18_cifar":
        model = torchvision.models.resnet18(num_classes=classes)
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
        return model
    return getattr(torchvision.models, name)(num_classes=classes)


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def window(runs, work, device):
    """Seconds that each of `runs` runs takes, one behind the other."""
    start = time.perf_counter()
    for _ in range(runs):
        work()
    wait(device)
    return (time.perf_counter() - start) / runs


def measure(work, device, args):
    for _ in range(args.warmup):
        work()
    wait(device)
    runs = max(1, -int(-args.seconds // window(2, work, device)))
    return [window(runs, work, device) for _ in range(max(1, args.windows))]


def measure_host(work, device, args):
    """Seconds until a run's `work` returns where nothing waits in front of it."""
    seconds = []
    for _ in range(max(1, args.windows)):
        wait(device)
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    wait(device)
    return statistics.median(seconds)


def allow_tf32(precision):
    """Lets products of f32 round to TF32 where that is what is measured."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


class Training:
    """A step: forward, cross-entropy, backward, SGD with momentum."""

    def __init__(self, name, classes, size, batch, precision, mode, device):
        torch.manual_seed(1)
        allow_tf32(precision)
        torch.backends.cudnn.benchmark = True
        self.device = device
        self.model = network(name, classes).to(device, memory_format=torch.channels_last).train()
        self.forward = torch.compile(self.model) if mode == "compile" else self.model
        fused = {"fused": True} if device.type == "cuda" else {"foreach": True}
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, **fused
        )
        images = torch.randn(batch, 3, size, size, device=device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.arange(batch, device=device) % classes
        self.dtype = DTYPES.get(precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "f16")

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            loss = torch.nn.functional.cross_entropy(self.forward(self.images), self.labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def is_finite(self):
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())


def matmul(precision, device, args):
    """A large product of matrices, as tallow-gpu-bench measures it through candle."""
    allow_tf32(precision)
    size, dtype = 8192 if device.type == "cuda" else 512, DTYPES.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = measure(lambda: a @ b.t(), device, args)
    return {"size": size, "precision": precision, "flops": 2 * size**3 / statistics.median(seconds)}


def describe(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def line(**fields):
    print(json.dumps(fields), flush=True)


def one(args, name, precision, batch, device, peak):
    classes, size, quick = NETWORKS[name]
    size = quick if args.quick else size
    common = dict(kind="training", framework="pytorch", mode=args.mode, network=name, size=size, batch=batch)
    common |= dict(precision=precision, device=describe(device), version=torch.__version__)
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        training = Training(name, classes, size, batch, precision, args.mode, device)
        seconds = measure(training.step, device, args)
        host = measure_host(training.step, device, args)
        step = statistics.median(seconds)
        line(
            **common,
            out_of_memory=False,
            images_per_second=batch / step,
            step_ms=1e3 * step,
            host_ms=1e3 * host,
            windows_ms=[1e3 * s for s in seconds],
            peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            matmul=peak,
            finite=training.is_finite(),
        )
        return True
    except torch.OutOfMemoryError:
        line(**common, out_of_memory=True)
        return False


def train(args):
    device = torch.device(args.device)
    cpu = device.type == "cpu"
    for precision in args.precision or (["f32"] if cpu else ["bf16"]):
        peak = matmul(precision, device, args)
        for name in args.networks:
            first = 2 if args.quick else 8 if cpu else 32
            batch, batches = first, args.batch
            while batch <= LARGEST_BATCH:
                if batches is not None:
                    if not batches:
                        break
                    batch, batches = batches[0], batches[1:]
                fits = one(args, name, precision, batch, device, peak)
                if device.type == "cuda":
                    # The exception's traceback held the tensors until here.
                    torch.cuda.empty_cache()
                torch.compiler.reset()
                if not fits or (batches is None and cpu):
                    break
                if batches is None:
                    batch *= 2


def profile(args):
    """The ten heaviest kernels of a step, by torch.profiler, which asks CUPTI."""
    device = torch.device(args.device)
    if device.type != "cuda":
        sys.exit("a profile is of a GPU's kernels: name one with --device cuda:N")
    steps = 10
    name, precision, batch = args.network, (args.precision or ["bf16"])[0], (args.batch or [128])[0]
    classes, size, _ = NETWORKS[name]
    training = Training(name, classes, size, batch, precision, args.mode, device)
    window(5, training.step, device)
    step = window(steps, training.step, device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        window(steps, training.step, device)
    kernels = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset")):
            time_us, calls = kernels.get(event.name, (0.0, 0))
            kernels[event.name] = (time_us + event.time_range.elapsed_us(), calls + 1)
    total = sum(time_us for time_us, _ in kernels.values())
    heaviest = sorted(kernels.items(), key=lambda kernel: -kernel[1][0])[:10]
    line(
        kind="profile",
        framework="pytorch",
        mode=args.mode,
        network=name,
        batch=batch,
        precision=precision,
        step_ms=1e3 * step,
        kernels_ms=total / 1e3 / steps,
        launches=sum(calls for _, calls in kernels.values()) / steps,
        kernels=[
            dict(name=kernel, ms=time_us / 1e3 / steps, calls=calls / steps, share=time_us / total)
            for kernel, (time_us, calls) in heaviest
        ],
    )


def commas(kind, choices=None):
    def parse(text):
        values = [kind(part) for part in text.split(",")]
        for value in values:
            if choices is not None and value not in choices:
                raise argparse.ArgumentTypeError(f"{value} is none of {', '.join(choices)}")
        return values

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "profile"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--networks", type=commas(str, NETWORKS), default=list(NETWORKS))
    parser.add_argument("--network", choices=NETWORKS, default="resnet50", help="of a profile")
    parser.add_argument("--precision", type=commas(str, PRECISIONS))
    parser.add_argument("--batch", type=commas(int))
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.warmup, args.windows, args.seconds = 1, 2, 0.0
    {"train": train, "profile": profile}[args.what](args)


if __name__ == "__main__":
    main()
