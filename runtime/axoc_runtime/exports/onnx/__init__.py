"""ONNX, with a cache of keys and values: by onnxruntime-genai's model builder, or by torch.onnx where it knows no such model."""
