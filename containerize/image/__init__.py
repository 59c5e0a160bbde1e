"""Archives of images, read safely, written canonically, their digests."""
