"""Media made by rule: test files with known content, and a small rendered world with ground truth."""
