"""Licences, as SPDX names them where that can be told."""

import email

import pytest

from containerize.publish import licences
from containerize.publish.licences import Clause

FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("Expat", "MIT"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("MPL-1.1 or GPL-2", "MPL-1.1 OR GPL-2.0-only"),
        ("GPL-2 or Artistic, and Expat", "(GPL-2.0-only OR Artistic-1.0) AND MIT"),
        ("GPL-2  and\tZlib", "GPL-2.0-only AND Zlib"),
    ],
)
def test_debian_short_names_become_those_of_spdx(name, expression):
    text = f"{FORMAT}\nFiles: *\nCopyright: x\nLicense: {name}\n whole text\n"
    assert licences.debian(text) == (Clause(expression, True),)


@pytest.mark.parametrize(
    "name", ["public-domain", "GPL-2+ with OpenSSL exception", "GPL", "Expat or X-mine"]
)
def test_what_spdx_does_not_know_keeps_its_name(name):
    text = f"{FORMAT}\nFiles: *\nLicense: {name}\n"
    assert licences.debian(text) == (Clause(name, False),)


def test_each_clause_of_the_files_counts_once_and_no_text_of_a_licence():
    text = (
        f"{FORMAT}License: GPL-3\n\nFiles: a\nLicense: Zlib\n\nFiles: b\n"
        "License: Zlib\n\nFiles: c\nLicense: ISC\n\nLicense: ISC\n Its text.\n"
    )
    assert licences.debian(text) == (Clause("ISC", True), Clause("Zlib", True))


def test_a_free_text_says_nothing():
    assert licences.debian("This package is GPL.\nLicense: MIT\n") == ()


@pytest.mark.parametrize(
    ("metadata", "clauses"),
    [
        ("License-Expression: MIT OR Apache-2.0", [("MIT OR Apache-2.0", True)]),
        ("License-Expression: LicenseRef-x y", [("LicenseRef-x y", False)]),
        ("License: ZPL 2.1", [("ZPL-2.1", True)]),
        ("License: bsd-3-clause", [("BSD-3-Clause", True)]),
        ("License: MIT OR ISC", [("MIT OR ISC", True)]),
        ("License: My own", [("My own", False)]),
        (
            "License: BSD\nClassifier: License :: OSI Approved :: MIT License",
            [("MIT", True)],
        ),
        (
            "Classifier: License :: OSI Approved :: BSD License",
            [("BSD License", False)],
        ),
        ("Classifier: License :: OSI Approved", []),
        (f"License: {'word ' * 30}", []),
        ("Name: x", []),
    ],
)
def test_wheels_say_their_licence_in_four_ways(metadata, clauses):
    found = licences.wheel(email.message_from_string(f"{metadata}\n\nLicense: no\n"))
    assert found == tuple(Clause(*each) for each in clauses)
