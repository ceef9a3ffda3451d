collect_ignore = ["make.py"]  # needs torch, which no test does
