"""What an image is made of, by hash: requirements, Debian packages, tools."""
