"""Loads a SavedModel of Tallow's, adds a number to every variable, and saves in each of TensorFlow's ways.

    python rewrite.py FOLDER NUMBER

FOLDER/model is read; sharded, objects, objects_alone, moved, sgd, resaved and slots are written beside it.
"""

import pathlib
import sys

import tensorflow as tf

folder, number = pathlib.Path(sys.argv[1]), float(sys.argv[2])
loaded = tf.saved_model.load(str(folder / "model" / "1"))
for variable in loaded.variables:
    variable.assign_add(tf.fill(variable.shape, number))

# TensorFlow 2: the model as an object, with a save counter; the same without one; the SavedModel again.
tf.train.Checkpoint(model=loaded).save(str(folder / "objects" / "training"))
tf.train.Checkpoint(model=loaded).write(str(folder / "objects_alone"))
# Keras' optimisers keep their slots beside the model, under names of their own; a step of size 0 makes them.
for name, optimizer in [("adam", tf.keras.optimizers.Adam(0.0)), ("sgd", tf.keras.optimizers.SGD(0.0, momentum=0.9))]:
    optimizer.apply_gradients([(tf.ones_like(v), v) for v in loaded.trainable_variables])
    tf.train.Checkpoint(model=loaded, optimizer=optimizer, step=tf.Variable(3)).save(str(folder / name / "training"))
# A folder that was moved: the state file names the absolute path where it was.
(folder / "adam").rename(folder / "moved")
tf.saved_model.save(loaded, str(folder / "resaved"))

# TensorFlow 1: several data files, variables in parts, the slots of an optimiser.
v1 = tf.compat.v1
values = {variable.name.split(":")[0]: variable.numpy() for variable in loaded.variables}


def save(name, parts, slots):
    # A sharded saver writes a data file for each device.
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        for number, (key, value) in enumerate(values.items()):
            partitioner = v1.fixed_size_partitioner(min(parts, value.shape[0])) if parts > 1 else None
            with tf.device(f"/cpu:{number % 2 if parts > 1 else 0}"):
                start = v1.constant_initializer(value) if parts == 1 else None
                if start is None:
                    # Each part takes its rows of the value.
                    def start(shape, dtype=None, partition_info=None, value=value):
                        offset = partition_info.var_offset if partition_info else [0] * len(shape)
                        rows = tuple(slice(o, o + n) for o, n in zip(offset, shape))
                        return tf.constant(value[rows])
                v1.get_variable(key, value.shape, tf.float32, start, partitioner=partitioner)
        step = v1.train.get_or_create_global_step()
        if slots:
            loss = tf.add_n([tf.reduce_sum(v * v) for v in v1.trainable_variables() if v is not step])
            v1.train.MomentumOptimizer(0.0, 0.9).minimize(loss, step)
        session.run(v1.global_variables_initializer())
        (folder / name).mkdir()
        v1.train.Saver(sharded=parts > 1).save(session, str(folder / name / "model.ckpt"), global_step=7)


save("slots", 1, True)
save("sharded", 3, False)
assert len(list((folder / "sharded").glob("*.data-*"))) > 1
