# SPDX-License-Identifier: Apache-2.0
"""Makes a small wheel: `package.py FOLDER` writes `forebay_sample-1.0-py3-none-any.whl` there."""

import base64
import hashlib
import pathlib
import sys
import zipfile

INFO = "forebay_sample-1.0.dist-info"
FILES = {
    "forebay_sample/__init__.py": "from forebay_sample.deep.answer import ANSWER\n",
    "forebay_sample/deep/__init__.py": "",
    "forebay_sample/deep/answer.py": "ANSWER = 42\n",
    "forebay_sample/data.txt": "data\n" * 20_000,
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: forebay-sample\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\nforebay-sample = forebay_sample.cli:main\n",
    "forebay_sample/cli.py": "def main():\n    print('sample')\n",
}


def record(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest())
    return f"{name},sha256={digest.decode().rstrip('=')},{len(content)}\n"


def main():
    wheel = pathlib.Path(sys.argv[1], "forebay_sample-1.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as file:
        for name, content in FILES.items():
            file.writestr(name, content)
        lines = "".join(record(name, content) for name, content in FILES.items())
        file.writestr(f"{INFO}/RECORD", lines + f"{INFO}/RECORD,,\n")


if __name__ == "__main__":
    main()
