"""The environment that docs/tracking.md makes is that of a file which a wheel carries."""

import re

from paths import CHECKOUT


def test_the_page_installs_the_file_that_is_shipped():
    page = (CHECKOUT / "docs" / "tracking.md").read_text()
    (name,) = re.findall(r"pip install -r ~/track/share/tfdrl/(\S+) mlflow-skinny", page)
    setup = (CHECKOUT / "setup.py").read_text()
    shipped = re.search(r"^SHARED = \[(.*?)\]", setup, re.MULTILINE | re.DOTALL)[1]
    assert f'"{name}"' in shipped
    lines = (CHECKOUT / name).read_text().splitlines()
    packages = {line for line in lines if not line.startswith("#")}
    assert packages <= set(re.findall(r'"([\w-]+)[>=]', setup)) and "tensorflow" not in packages
