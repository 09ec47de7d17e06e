//! Lowers a layer graph and its weights to ONNX and to a model directory.
