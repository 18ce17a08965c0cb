"""What the segmentation client manages: series in, structure sets out."""
