//! Conformance: candle, ONNX Runtime, tract and candle-onnx agree on every network.
