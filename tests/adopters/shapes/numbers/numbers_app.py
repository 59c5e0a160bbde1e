import io

import numpy
from flask import Flask
from lxml import etree
from PIL import Image

app = Flask(__name__)


@app.get("/")
def index():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 3)).save(buffer, "PNG")
    size = Image.open(io.BytesIO(buffer.getvalue())).size
    total = int(numpy.arange(10).sum())
    return {"sum": total, "size": size, "root": etree.fromstring("<a/>").tag}
