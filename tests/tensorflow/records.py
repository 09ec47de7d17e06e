"""TensorFlow reads TFRecord shards that Tallow wrote, and its own writer has to give the same bytes.

    python records.py SCHEMA SHARD…        # SCHEMA: imagenet, inception or tfds

Each file is read with tf.data, each record parsed with tf.io.parse_single_example and its image decoded; then the
example is made anew from the parsed values, serialised deterministically, and written with tf.io.TFRecordWriter. Exits
with 1 and a message where anything differs.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf  # noqa: E402  (the log level has to be set first)

TEXT, NUMBER = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
IMAGENET = {
    "image/height": NUMBER,
    "image/width": NUMBER,
    "image/colorspace": TEXT,
    "image/channels": NUMBER,
    "image/class/label": NUMBER,
    "image/class/synset": TEXT,
    "image/format": TEXT,
    "image/filename": TEXT,
    "image/encoded": TEXT,
}
BOXES = {f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32) for side in ("xmin", "ymin", "xmax", "ymax")}
SCHEMAS = {
    "imagenet": IMAGENET,
    "inception": {
        **IMAGENET,
        **BOXES,
        "image/class/text": TEXT,
        "image/object/bbox/label": tf.io.VarLenFeature(tf.int64),
    },
    "tfds": {"image": TEXT, "label": NUMBER, "file_name": TEXT},
}


def feature(spec, value):
    """A parsed value as the feature it was."""
    values = value.values.numpy() if isinstance(value, tf.SparseTensor) else [value.numpy()]
    if spec.dtype == tf.string:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if spec.dtype == tf.int64:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def check_image(path, schema, parsed):
    """The image decodes, to the size that the example says."""
    pixels = tf.io.decode_jpeg(parsed["image" if schema == "tfds" else "image/encoded"], channels=3)
    if schema != "tfds":
        said = tuple(int(parsed[f"image/{side}"]) for side in ("height", "width", "channels"))
        if tuple(pixels.shape) != said:
            sys.exit(f"{path}: an image of {tuple(pixels.shape)} is said to be of {said}")


def check(path, schema):
    """Compares one file; gives the number of its records."""
    spec = SCHEMAS[schema]
    written = os.path.join(tempfile.mkdtemp(), "shard")
    count = 0
    with tf.io.TFRecordWriter(written) as writer:
        for record in tf.data.TFRecordDataset(path):
            parsed = tf.io.parse_single_example(record, spec)
            check_image(path, schema, parsed)
            features = {key: feature(spec[key], value) for key, value in parsed.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            bytes_ = example.SerializeToString(deterministic=True)
            if bytes_ != record.numpy():
                sys.exit(f"{path}: record {count} is not what TensorFlow writes")
            writer.write(bytes_)
            count += 1
    with open(path, "rb") as ours, open(written, "rb") as theirs:
        if ours.read() != theirs.read():
            sys.exit(f"{path}: the file is not what TensorFlow's writer gives")
    return count


def main():
    schema, paths = sys.argv[1], sys.argv[2:]
    if schema not in SCHEMAS or not paths:
        sys.exit(__doc__)
    print(sum(check(path, schema) for path in paths), "records are the same")


if __name__ == "__main__":
    main()
