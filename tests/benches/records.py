"""tf.data's half of the benchmark `records`: the same shards, the same work, the same machine.

    python records.py raw|images SECONDS SHARD…

Prints one line of JSON for each pipeline that is customary for the work; the benchmark takes the fastest.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf  # noqa: E402  (the log level has to be set first)

AUTO = tf.data.AUTOTUNE
SPEC = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}
MEAN, STD = tf.constant([0.485, 0.456, 0.406]), tf.constant([0.229, 0.224, 0.225])


def records(paths):
    """Shards in random order, 16 read in turn."""
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    return files.interleave(
        tf.data.TFRecordDataset, cycle_length=16, num_parallel_calls=AUTO, deterministic=False
    )


def sizes(encoded):
    return tf.reduce_sum(tf.cast(tf.strings.length(encoded), tf.int64))


def raw_one_by_one(paths):
    """Records, checked and parsed."""
    parsed = records(paths).map(lambda record: tf.io.parse_single_example(record, SPEC), num_parallel_calls=AUTO)
    return parsed.batch(256).map(lambda batch: (tf.size(batch["image/class/label"]), sizes(batch["image/encoded"])))


def raw_in_batches(paths):
    """As above, with a parser that takes a batch."""
    parsed = records(paths).batch(256).map(lambda batch: tf.io.parse_example(batch, SPEC), num_parallel_calls=AUTO)
    return parsed.map(lambda batch: (tf.size(batch["image/class/label"]), sizes(batch["image/encoded"])))


def images(paths, method):
    """Decoded, resized to 224 by 224 and normalised, in batches of 64."""

    def load(record):
        parsed = tf.io.parse_single_example(record, SPEC)
        pixels = tf.io.decode_jpeg(parsed["image/encoded"], channels=3, dct_method=method)
        resized = tf.image.resize(pixels, [224, 224])
        return (resized / 255.0 - MEAN) / STD, parsed["image/class/label"], tf.strings.length(parsed["image/encoded"])

    batches = records(paths).map(load, num_parallel_calls=AUTO, deterministic=False).batch(64)
    batches = batches.map(lambda pixels, labels, bytes_: (tf.size(labels), tf.reduce_sum(tf.cast(bytes_, tf.int64)), pixels[0, 0, 0, 0]))
    return batches.map(lambda count, bytes_, pixel: (count, bytes_))


PIPELINES = {
    "raw": {"parse_single_example": raw_one_by_one, "parse_example": raw_in_batches},
    "images": {
        "decode_jpeg": lambda paths: images(paths, ""),
        "decode_jpeg, accurate": lambda paths: images(paths, "INTEGER_ACCURATE"),
    },
}


def measure(dataset, seconds):
    """Whole passes, after one to warm up, until the time is over."""
    zero = (tf.constant(0, tf.int64), tf.constant(0, tf.int64))
    dataset = dataset.prefetch(AUTO)

    def total():
        return dataset.reduce(zero, lambda sums, found: (sums[0] + tf.cast(found[0], tf.int64), sums[1] + found[1]))

    total()
    start, cpu, count, size = time.perf_counter(), time.process_time(), 0, 0
    while count == 0 or time.perf_counter() - start < seconds:
        found = total()
        count, size = count + int(found[0]), size + int(found[1])
    elapsed = time.perf_counter() - start
    cpu = time.process_time() - cpu
    return {"records": count / elapsed, "bytes": size / elapsed, "cpu": cpu / count}


def main():
    work, seconds, paths = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    for name, pipeline in PIPELINES[work].items():
        print(json.dumps({"pipeline": name, **measure(pipeline(paths), seconds)}), flush=True)


if __name__ == "__main__":
    main()
