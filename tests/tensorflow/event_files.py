"""Reads a run's event files with TensorBoard's own readers: its EventAccumulator, and its server over HTTP.

usage: event_files.py RUN

RUN is a run directory of `tallow train` whose settings write everything (every epoch's pictures and histograms, the
gradient flow). Ends with status 1 and one line for the first thing that is wrong.
"""

import csv
import json
import re
import struct
import sys
import time
from pathlib import Path

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.compat.proto import graph_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from server import Server

TENSORS = {event_accumulator.TENSORS: 0}
EPOCH = {"epoch/loss": "loss", "epoch/top1": "top1", "epoch/top5": "top5"}
# Scalars are rounded to 32 bits.
CLOSE = 1e-6


def check(condition, message):
    if not condition:
        sys.exit(f"wrong: {message}")


def png_size(data):
    check(data[:8] == b"\x89PNG\r\n\x1a\n", "an image is no PNG")
    return struct.unpack(">II", data[16:24])


class Part:
    """One of the run's folders."""

    def __init__(self, folder):
        self.folder = folder
        self.events = plugin_event_accumulator.EventAccumulator(str(folder), TENSORS)
        self.events.Reload()

    def values(self, tag):
        """(step, value) of a tag, whose steps must rise."""
        found = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in self.events.Tensors(tag)]
        steps = [step for step, _ in found]
        check(steps == sorted(set(steps)), f"{self.folder}, {tag}: steps come twice or go back: {steps}")
        return found


def plugin_tags(part, plugin):
    try:
        return sorted(part.events.PluginTagToContent(plugin))
    except KeyError:
        return []


def scalars(part, tag):
    return [(step, float(value)) for step, value in part.values(tag)]


def check_scalars(run, train, validation):
    with open(run / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    check(rows, "metrics.csv has no epochs")
    for tag, column in EPOCH.items():
        for part, prefix in [(train, "train"), (validation, "validation")]:
            check(tag in plugin_tags(part, "scalars"), f"{part.folder} has no {tag}")
            found = scalars(part, tag)
            check([step for step, _ in found] == [int(row["step"]) for row in rows], f"{tag}: {found}")
            for (_, value), row in zip(found, rows):
                expected = row.get(f"{prefix}_{column}")
                if expected is not None:
                    good = abs(value - float(expected)) <= CLOSE * max(1.0, abs(value))
                    check(good, f"{part.folder}, {tag}: {value} instead of {expected}")
    last = int(rows[-1]["step"])
    for tag in ["loss", "learning_rate", "gradient_norm", "images_per_second"]:
        found = scalars(train, f"step/{tag}")
        check([step for step, _ in found] == list(range(1, last + 1)), f"step/{tag} lacks steps")
        check(all(value > 0 for _, value in found), f"step/{tag}: {found}")
    flows = [tag for tag in plugin_tags(train, "scalars") if tag.startswith("flow_")]
    check(len(flows) > 10, f"the gradient flow has but {flows}")
    return len(rows)


def check_histograms(train, epochs):
    tags = plugin_tags(train, "histograms")
    for kind in ["weights", "gradients", "activations"]:
        check(any(tag.startswith(f"{kind}/") for tag in tags), f"no histograms of {kind}")
    for tag in tags:
        found = train.values(tag)
        check(len(found) == epochs, f"{tag} has {len(found)} histograms, the run {epochs} epochs")
        totals = {value[:, 2].sum() for _, value in found}
        check(len(totals) == 1 and totals.pop() > 0, f"{tag}: the counts do not add up to the same number")
        for _, value in found:
            check(value.shape[1] == 3 and (value[:, 0] < value[:, 1]).all(), f"{tag}: no buckets: {value}")
    return len(tags)


def check_pictures(part, tags):
    for tag in tags:
        check(tag in plugin_tags(part, "images"), f"{part.folder} has no {tag}")
        for _, value in part.values(tag):
            width, height, png = value
            check(png_size(png) == (int(width), int(height)), f"{tag} has another size than it says")


def check_texts(run, train):
    _, settings = train.values("settings")[-1]
    shown = re.sub(r"(?m)^    ", "", settings.item().decode())
    check(shown == (run / "config.toml").read_text(encoding="utf-8"), "the settings are not config.toml")


def check_graph(run, train):
    check(train.events.Tags()["graph"], "there is no graph")
    graph = graph_pb2.GraphDef.FromString(train.events.SerializedGraph())
    names = {node.name for node in graph.node}
    layers = json.loads((run / "network.json").read_text(encoding="utf-8"))["layers"]
    check(len(names) == len(graph.node) > len(layers), "the graph lacks nodes")
    for node in graph.node:
        check("_output_shapes" in node.attr, f"{node.name} has no shape")
        check(all(name in names for name in node.input), f"{node.name} takes what is not there")
    return len(names)


def check_curves(validation):
    tags = plugin_tags(validation, "pr_curves")
    check("precision_recall/all classes" in tags and len(tags) > 1, f"PR curves: {tags}")
    for tag in tags:
        for _, value in validation.values(tag):
            tp, fp, tn, fn, precision, recall = value
            check(len(set((tp + fp + tn + fn).tolist())) == 1, f"{tag}: decisions are lost")
            check(recall[0] == 1 and (recall[1:] <= recall[:-1]).all(), f"{tag}: recall rises")
            said = tp + fp
            right = abs(precision * said - tp) <= 1e-4 * said.clip(1)
            check(right.all(), f"{tag}: precision is not tp / (tp + fp)")


def check_hparams(root, epochs):
    contents = {tag: root.events.SummaryMetadata(tag).plugin_data.content for tag in plugin_tags(root, "hparams")}
    read = plugin_data_pb2.HParamsPluginData.FromString
    start = read(contents["_hparams_/session_start_info"]).session_start_info
    check(start.hparams["optimizer.kind"].string_value == "sgd", f"hyperparameters: {start}")
    check(start.hparams["schedule.learning_rate"].number_value > 0, f"hyperparameters: {start}")
    check(start.hparams["epochs"].number_value == epochs, f"the run has {epochs} epochs, but {start}")
    check(read(contents["_hparams_/session_end_info"]).session_end_info.status == 1, "the run has not ended well")
    return len(start.hparams)


def check_server(run, best, *flags):
    server = Server(run, *flags)
    try:
        pages(server, best)
    finally:
        server.stop()


def pages(server, best):
    for _ in range(100):
        tags = server.json("plugin/scalars/tags")
        if "validation" in tags and "train" in tags:
            break
        time.sleep(0.2)
    check(set(EPOCH) <= set(tags["train"]) & set(tags["validation"]), f"the server's scalars: {tags}")
    curve = server.json("plugin/scalars/scalars", run="validation", tag="epoch/loss")
    check(curve and len(curve[0]) == 3, f"the server's curve: {curve}")
    histograms = server.json("plugin/histograms/tags")["train"]
    tag = next(tag for tag in histograms if tag.startswith("weights/"))
    check(server.json("plugin/histograms/histograms", run="train", tag=tag), "the server has no histogram")
    images = server.json("plugin/images/tags")
    for part, tag in [("train", "images/augmented"), ("train", "images/gradient_flow"), ("validation", "confusion")]:
        check(tag in images[part], f"the server's images: {images}")
        entry = server.json("plugin/images/images", run=part, tag=tag, sample=0)[-1]
        png = server.get(f"plugin/images/individualImage?{entry['query']}")
        check(min(png_size(png)) > 100, f"the server's image of {tag}")
    texts = server.json("plugin/text/tags")
    check({"settings", "gradient_flow"} <= set(texts["train"]), f"the server's texts: {texts}")
    text = server.json("plugin/text/text", run="train", tag="settings")[0]["text"]
    check("learning_rate" in text, f"the server's text: {text}")
    curves = server.json("plugin/pr_curves/tags")
    check("precision_recall/all classes" in curves["validation"], f"the server's PR curves: {curves}")
    found = server.json("plugin/pr_curves/pr_curves", run="validation", tag="precision_recall/all classes")
    check(len(found["validation"][-1]["precision"]) > 10, "the server's PR curve is short")
    graph = server.get("plugin/graphs/graph", run="train").decode()
    check("conv/Conv2D" in graph and "_output_shapes" in graph, "the server has no graph")
    experiment = server.json("plugin/hparams/experiment", {"experimentName": ""})
    names = {info["name"] for info in experiment["hparamInfos"]}
    check({"optimizer.kind", "schedule.learning_rate"} <= names, f"the server's hyperparameters: {names}")
    wanted = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_UNKNOWN", "STATUS_FAILURE"],
        "colParams": [{"metric": info["name"], "includeInResult": True} for info in experiment["metricInfos"]],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = server.json("plugin/hparams/session_groups", wanted)["sessionGroups"]
    metrics = {metric["name"]["tag"]: metric["value"] for metric in groups[0]["metricValues"]}
    check(metrics.get("best/top1") == best, f"the server's final metrics: {metrics}, not {best}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Path(sys.argv[1])
    root, train, validation = Part(run), Part(run / "train"), Part(run / "validation")
    epochs = check_scalars(run, train, validation)
    histograms = check_histograms(train, epochs)
    check_pictures(train, ["images/augmented", "images/gradient_flow"])
    check_pictures(validation, ["confusion"])
    check_texts(run, train)
    nodes = check_graph(run, train)
    check_curves(validation)
    hparams = check_hparams(root, epochs)
    # With TensorBoard's reader in Python, and with the faster one where it is installed.
    best = max(value for _, value in scalars(validation, "epoch/top1"))
    check(scalars(root, "best/top1")[-1][1] == best, "the best validation is not the best")
    check_server(run, best, "--load_fast=false")
    check_server(run, best, "--load_fast=auto")
    print(
        f"{epochs} epochs, {histograms} histograms, {nodes} nodes of the graph, {hparams} hyperparameters: "
        "EventAccumulator and TensorBoard's server agree"
    )


if __name__ == "__main__":
    main()
