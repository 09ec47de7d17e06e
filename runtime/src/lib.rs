//! Serves ONNX classifiers through ONNX Runtime or tract.
