"""python -m train.bench: how fast models are, beside torch where asked, and how fast data comes."""
