"""The tables of `run`, as Markdown, from its lines of JSON."""

import statistics

SIDES = (("tallow", "eager", "Tallow"), ("pytorch", "eager", "PyTorch"), ("pytorch", "compile", "PyTorch, compiled"))
# Goals of the benchmark: images/s beside PyTorch's, and the share of the matrix product's FLOPs on ResNet-50.
BESIDE_PYTORCH, SHARE = 1.0, 0.45


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def side(line):
    return next(name for framework, mode, name in SIDES if (framework, mode) == (line["framework"], line["mode"]))


def flops_share(line, macs):
    """The share of the matrix product that ran in the same process, in the same numbers."""
    network = (line["network"], line["size"])
    if network not in macs:
        return None
    step = 6 * macs[network] * line["images_per_second"]
    return step / line["matmul"]["flops"]


def percent(value):
    return "–" if value is None else f"{100 * value:.1f} %"


def gib(value):
    return "–" if value is None else f"{value / 2**30:.1f}"


def training_row(line, macs):
    head = [line["network"], line["precision"], str(line["batch"]), side(line)]
    if line["out_of_memory"]:
        return [*head, "out of memory", "–", "–", "–", "–"]
    figures = [f"{line['images_per_second']:.0f}", f"{line['step_ms']:.2f}", f"{line['host_ms']:.2f}"]
    figures.append(gib(line["peak_bytes"]))
    sound = "" if line["finite"] else " (weights are not finite!)"
    return [*head, *figures, percent(flops_share(line, macs)) + sound]


def duels(lines, macs):
    """Each network at one batch: the medians of the rounds, and Tallow's over the others'."""
    rows = []
    keys = dict.fromkeys((line["network"], line["precision"], line["batch"]) for line in lines)
    for key in keys:
        of = [line for line in lines if (line["network"], line["precision"], line["batch"]) == key]
        speed = {}
        for name in dict.fromkeys(side(line) for line in of):
            speed[name] = statistics.median(line["images_per_second"] for line in of if side(line) == name)
        if "Tallow" not in speed:
            continue
        ours = next(line for line in of if side(line) == "Tallow")
        share = flops_share({**ours, "images_per_second": speed["Tallow"]}, macs)
        row = [key[0], key[1], str(key[2]), f"{speed['Tallow']:.0f}", percent(share)]
        for _, _, name in SIDES[1:]:
            row.append(f"{speed[name]:.0f}" if name in speed else "–")
            row.append(f"{speed['Tallow'] / speed[name]:.2f}x" if name in speed else "–")
        rows.append(row)
    return rows


def profiles(lines):
    for line in lines:
        name = side(line)
        yield (
            f"### {name}: kernels of {line['network']}, {line['precision']}, batch {line['batch']}\n\n"
            f"A step takes {line['step_ms']:.2f} ms, its {line['launches']:.0f} kernels "
            f"{line['kernels_ms']:.2f} ms: the rest of it, the GPU waits.\n\n"
            + table(
                ("kernel", "ms a step", "calls a step", "share"),
                [
                    [f"`{k['name'][:90]}`", f"{k['ms']:.3f}", f"{k['calls']:.1f}", percent(k["share"])]
                    for k in line["kernels"]
                ],
            )
        )


def markdown(lines, notes, gpu, quick):
    training = [line for line in lines if line["kind"] == "training"]
    measured = [line for line in training if not line["out_of_memory"]]
    macs = {(line["network"], line["size"]): line["macs"] for line in measured if "macs" in line}
    parts = [f"## On {gpu}"]
    if quick:
        parts.append("Quick: tiny images and no time. These figures mean nothing.")
    peaks = {}
    for line in measured:
        product = (line["framework"], line["matmul"]["size"], line["matmul"]["precision"])
        peaks.setdefault(product, []).append(line["matmul"]["flops"])
    for (framework, size, precision), flops in peaks.items():
        tera = statistics.median(flops) / 1e12
        parts.append(f"Matrix product of {size}² in {precision} through {framework}: {tera:.2f} TFLOP/s.")
    held = [line for line in measured if "duel" in line]
    if held:
        header = ("network", "numbers", "batch", "Tallow, images/s", "of the matmul peak", "PyTorch", "ratio")
        header += ("PyTorch, compiled", "ratio")
        parts.append(
            "### In turn, at the batch that fits both and at which PyTorch was the fastest\n\n"
            + table(header, duels(held, macs))
            + f"\n\nGoals: {BESIDE_PYTORCH:.1f}x PyTorch, {percent(SHARE)} of the matmul peak on ResNet-50."
        )
    swept = [line for line in training if "duel" not in line]
    if swept:
        header = ("network", "numbers", "batch", "side", "images/s", "ms a step", "ms of the host")
        header += ("peak GiB", "of the matmul peak")
        parts.append("### Batches\n\n" + table(header, [training_row(line, macs) for line in swept]))
    parts += profiles([line for line in lines if line["kind"] == "profile"])
    serving = [line for line in lines if line["kind"] == "serving"]
    if serving:
        rows = [
            [
                line["network"],
                line["precision"],
                str(line["batch"]),
                line["engine"],
                f"{line['runtime_ms']:.3f}",
                f"{line['bare_ms']:.3f}",
                f"{line['ratio']:.3f}x",
            ]
            for line in serving
        ]
        header = ("network", "file", "batch", "engine", "runtime, ms", "bare ONNX Runtime, ms", "ratio")
        goal = f"\n\nGoal: at most {serving[0]['goal']:.2f}x."
        parts.append("### Serving beside bare ONNX Runtime with IO binding\n\n" + table(header, rows) + goal)
    if notes:
        parts.append("### Notes\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"
