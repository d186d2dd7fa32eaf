"""A packaged model as one ONNX or OpenVINO file; no stage."""
