"""Times tf.saved_model.save of Keras's ResNet-50 and EfficientNet-B0 beside `tallow export --format saved-model`.

    python saved_model_export.py TALLOW FOLDER

FOLDER has resnet50.safetensors and efficientnet_b0.safetensors (`tallow export --model … --weights`'s input; random
weights will do, the time is the same). Medians of RUNS, in turn, each into a new directory.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import tensorflow as tf

RUNS = 5
tallow, folder = sys.argv[1], pathlib.Path(sys.argv[2])
out = folder / "exported"
models = {
    "resnet50": lambda: tf.keras.applications.ResNet50(weights=None),
    "efficientnet_b0": lambda: tf.keras.applications.EfficientNetB0(weights=None),
}
for name, make in models.items():
    model = make()
    call = tf.function(lambda images: {"logits": model(images)})
    call = call.get_concrete_function(tf.TensorSpec([None, 224, 224, 3], tf.float32, "images"))

    def keras():
        tf.saved_model.save(model, str(out), signatures={"serving_default": call})

    def ours():
        weights = folder / f"{name}.safetensors"
        flags = ["--model", name, "--weights", weights, "--format", "saved-model", "-o", out, "--json"]
        # The whole process; what the command says of itself leaves out the reading of the weights.
        return json.loads(subprocess.run([tallow, "export", *flags], check=True, capture_output=True).stdout)

    times = {keras: [], ours: []}
    inside = []
    for _ in range(RUNS):
        for save in times:
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            said = save()
            times[save].append(time.perf_counter() - start)
            if said:
                inside.append(said["seconds"])
    theirs, whole = (statistics.median(times[save]) for save in (keras, ours))
    print(
        f"{name}: tf.saved_model.save {theirs:.2f} s, tallow {whole:.2f} s as a process "
        f"({statistics.median(inside):.2f} s without start and reading), ratio {theirs / whole:.1f}"
    )
shutil.rmtree(out, ignore_errors=True)
