from importlib.metadata import version


def main():
    print("shelf", version("shelf"))
