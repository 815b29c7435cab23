"""Models in the formats of others: ONNX and `torch.export`."""
