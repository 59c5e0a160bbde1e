"""Docker and Podman: found, run, installed, their errors in one line."""
