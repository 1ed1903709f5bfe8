"""The forms in which a program leaves: C, ONNX, RTL, memory images. Each is a folder, cut alike."""
