"""R-CNN of 2014 but for its CNN: warped regions, linear SVMs with hard negatives, box regression."""
