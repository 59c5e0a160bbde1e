import ctypes
import ctypes.util

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    name = ctypes.util.find_library("magic")
    library = ctypes.CDLL(name)
    return {"name": name, "version": library.magic_version()}
