"""TensorFlow reads SavedModels and checkpoints that Tallow wrote, and computes what candle computed.

    python models.py load|session|c_api|command_line|tflite|fine_tune FOLDER

FOLDER has one folder a network: model/1 (the SavedModel), checkpoints/, images.f32 [N, H, W, C], logits.f32 and
case.json, which says their shapes. Prints a line a network and fails where the difference, relative to the largest
logit, is above the tolerance.
"""

import ctypes
import json
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

TOLERANCE = 1e-5


class Case:
    def __init__(self, folder):
        self.folder = folder
        self.name = folder.name
        self.model = str(folder / "model" / "1")
        self.__dict__.update(json.loads((folder / "case.json").read_text()))
        self.images = self.floats("images.f32", self.images)
        self.logits = self.floats("logits.f32", self.logits)

    def floats(self, file, shape):
        return np.fromfile(self.folder / file, "<f4").reshape(shape)

    def compare(self, what, found, expected=None):
        expected = self.logits if expected is None else expected
        found = np.asarray(found)
        assert found.shape == expected.shape, f"{self.name} {what}: {found.shape} instead of {expected.shape}"
        difference = np.max(np.abs(found.astype("f8") - expected)) / np.max(np.abs(expected))
        assert difference <= TOLERANCE, f"{self.name} {what}: differs by {difference:.2e}"
        return difference

    def serves(self, outputs):
        """The difference of the logits; the other outputs have to follow from them."""
        logits = np.asarray(outputs["logits"])
        exponential = np.exp(logits.astype("f8") - logits.max(1, keepdims=True))
        self.compare("probabilities", outputs["probabilities"], exponential / exponential.sum(1, keepdims=True))
        classes = np.asarray(outputs["classes"])
        assert classes.dtype == np.int64 and (classes == logits.argmax(1)).all(), f"{self.name}: classes {classes}"
        if self.cam:
            self.compare("cam", outputs["cam"], self.floats("cam.f32", self.cam))
        return self.compare("logits", logits)


def load(case):
    """tf.saved_model.load: called as a function, by signature, its variables and its asset; another batch size."""
    loaded = tf.saved_model.load(case.model)
    difference = case.serves(loaded.signatures["serving_default"](images=tf.constant(case.images)))
    case.compare("call", loaded(case.images))
    case.compare("one image", loaded(case.images[:1]), case.logits[:1])
    trainable = len(loaded.trainable_variables)
    assert trainable == case.trainable or case.folded, f"{case.name}: {trainable} trainable variables"
    names = [variable.name for variable in loaded.variables]
    assert len(names) == len(set(names)) >= trainable, names
    labels = pathlib.Path(loaded.labels.asset_path.numpy().decode()).read_text().splitlines()
    assert labels == [f"class {i}" for i in range(case.logits.shape[1])], labels
    return difference


def session(case):
    """A session of TensorFlow 1: from the SavedModel, and from the checkpoint through its meta graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as sess:
        meta = v1.saved_model.load(sess, ["serve"], case.model)
        signature = meta.signature_def["serving_default"]
        names = {key: info.name for key, info in signature.outputs.items()}
        feed = {signature.inputs["images"].name: case.images}
        difference = case.serves(sess.run(names, feed))
        trainable = len(v1.trainable_variables())
        assert trainable == case.trainable, f"{case.name}: {trainable} trainable variables"
        assert len(v1.global_variables()) >= trainable
    prefix = tf.train.latest_checkpoint(str(case.folder / "checkpoints"))
    assert prefix.endswith("model.ckpt-42"), prefix
    with tf.Graph().as_default(), v1.Session() as sess:
        saver = v1.train.import_meta_graph(prefix + ".meta")
        saver.restore(sess, prefix)
        case.serves(sess.run({key: key + ":0" for key in names}, {"images:0": case.images}))
        assert sess.run("global_step/Read/ReadVariableOp:0") == 42
        listed = dict(tf.train.list_variables(prefix))
        shapes = {v.name.split(":")[0]: v.shape.as_list() for v in v1.global_variables()}
        assert listed == shapes, (listed, shapes)
        reader = tf.train.load_checkpoint(prefix)
        assert reader.get_tensor("global_step") == 42
    return difference


def library():
    """TensorFlow's C API, which TensorFlow Serving and other languages use."""
    folder = pathlib.Path(tf.__file__).parent
    paths = [*folder.glob("libtensorflow_cc.so*"), *folder.glob("libtensorflow_framework.so*")]
    paths += folder.glob("python/_pywrap_tensorflow_internal.so")
    for path in paths:
        try:
            found = ctypes.CDLL(str(path))
            found.TF_LoadSessionFromSavedModel
            return found
        except (OSError, AttributeError):
            pass
    raise SystemExit(f"no C API in {folder}")


class Output(ctypes.Structure):
    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]


def c_api(case):
    """The C++ loader, which restores by saver_def alone."""
    tf_c = library()
    pointer = ctypes.c_void_p
    for name in (
        "TF_NewStatus TF_Message TF_NewSessionOptions TF_NewGraph TF_LoadSessionFromSavedModel "
        "TF_GraphOperationByName TF_AllocateTensor TF_TensorData"
    ).split():
        getattr(tf_c, name).restype = ctypes.c_char_p if name == "TF_Message" else pointer
    status = pointer(tf_c.TF_NewStatus())

    def check(step):
        assert tf_c.TF_GetCode(status) == 0, f"{case.name} {step}: {tf_c.TF_Message(status).decode()}"

    graph = pointer(tf_c.TF_NewGraph())
    tags = (ctypes.c_char_p * 1)(b"serve")
    options = pointer(tf_c.TF_NewSessionOptions())
    session = pointer(
        tf_c.TF_LoadSessionFromSavedModel(options, None, case.model.encode(), tags, 1, graph, None, status)
    )
    check("load")
    dims = (ctypes.c_int64 * 4)(*case.images.shape)
    tensor = pointer(tf_c.TF_AllocateTensor(1, dims, 4, ctypes.c_size_t(case.images.nbytes)))
    ctypes.memmove(tf_c.TF_TensorData(tensor), case.images.ctypes.data, case.images.nbytes)
    inputs = (Output * 1)(Output(tf_c.TF_GraphOperationByName(graph, b"images"), 0))
    outputs = (Output * 1)(Output(tf_c.TF_GraphOperationByName(graph, b"logits"), 0))
    values = (pointer * 1)()
    tf_c.TF_SessionRun(
        session, None, inputs, (pointer * 1)(tensor), 1, outputs, values, 1, None, 0, None, status
    )
    check("run")
    found = np.empty(case.logits.shape, "f4")
    ctypes.memmove(found.ctypes.data, tf_c.TF_TensorData(pointer(values[0])), found.nbytes)
    return case.compare("logits", found)


def command_line(case):
    """saved_model_cli shows and runs it."""

    def cli(*arguments):
        command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    shown = cli("show", "--dir", case.model, "--all")
    for expected in ("serving_default", "tensorflow/serving/predict", "inputs['images']", "outputs['classes']"):
        assert expected in shown, f"no {expected} in\n{shown}"
    images = case.folder / "images.npy"
    np.save(images, case.images)
    cli(
        *("run", "--dir", case.model, "--tag_set", "serve", "--signature_def", "serving_default"),
        *("--inputs", f"images={images}", "--outdir", str(case.folder)),
    )
    return case.compare("logits", np.load(case.folder / "logits.npy"))


def tflite(case):
    """Converted to TFLite with its own operations alone, and run by its interpreter."""
    model = tf.lite.TFLiteConverter.from_saved_model(case.model).convert()
    interpreter = tf.lite.Interpreter(model_content=model)
    runner = interpreter.get_signature_runner("serving_default")
    return case.serves(runner(images=case.images))


def fine_tune(case):
    """Batch norms train as candle's do, gradients reach every trainable variable, and Keras fits through the model."""
    loaded = tf.saved_model.load(case.model)
    assert case.deterministic, "the test's networks have no dropout"
    expected = case.floats("training_logits.f32", case.logits.shape)
    classes = np.arange(len(case.images)) % 3
    with tf.GradientTape() as tape:
        logits = loaded(case.images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits))
    difference = case.compare("training", logits, expected)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    moments = [v for v in loaded.variables if v.name.split("/")[-1].startswith("moving_")]
    assert moments
    for variable in moments:
        path = pathlib.Path("moments") / variable.name.split(":")[0]
        case.compare(variable.name, variable, case.floats(path, variable.shape))

    # The model as a layer, all of its variables trained by a Keras optimiser.
    layer = tf.keras.layers.TFSMLayer(case.model, call_training_endpoint="train")
    inputs = tf.keras.Input(case.images.shape[1:])
    model = tf.keras.Model(inputs, layer(inputs))
    assert len(model.trainable_variables) == case.trainable, len(model.trainable_variables)
    case.compare("Keras", model.predict(case.images, verbose=0))
    running = [np.array(v) for v in model.non_trainable_variables]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.SGD(1e-3), loss=loss)
    history = model.fit(case.images, classes, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0], history
    assert any((before != after.numpy()).any() for before, after in zip(running, model.non_trainable_variables))
    by_signature = tf.keras.layers.TFSMLayer(case.model, call_endpoint="serving_default")
    case.serves(by_signature(case.images))
    return difference


def dropout(case):
    """Stochastic depth drops whole images with probability 3/4, dropout elements with 1/5; the rest is scaled up."""
    loaded = tf.saved_model.load(case.model)
    images = np.ones((2000, *case.images.shape[1:]), "f4")
    found = loaded(images, training=True).numpy()
    kept = found[found.any(1)]
    assert abs(len(kept) / len(found) - 1 / 4) < 0.05, len(kept) / len(found)
    assert abs((kept != 0).mean() - 4 / 5) < 0.01, (kept != 0).mean()
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 / 4 * 4 / 5), rtol=1e-6)
    return case.compare("inference", loaded(case.images))


if __name__ == "__main__":
    how, folder = globals()[sys.argv[1]], pathlib.Path(sys.argv[2])
    cases = [Case(path) for path in sorted(folder.iterdir())]
    assert cases, "no networks"
    for case in cases:
        print(f"{sys.argv[1]:12} {case.name:26} {how(case):.1e}", flush=True)
