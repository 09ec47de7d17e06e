"""Fails where TensorFlow cannot be imported; says which it is."""

import tensorflow as tf

print("TensorFlow", tf.version.VERSION)
