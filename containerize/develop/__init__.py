"""The app from the working tree, in a container of its image."""
