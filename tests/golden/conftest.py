collect_ignore = ["make.py", "make_detection.py", "make_ops.py"]  # need torch, which no test does
