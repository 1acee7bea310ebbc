"""Run by the Python that is to have vLLM's serving benchmark: its files out of the wheel in the folder named.

``python unpack_vllm_bench.py FOLDER``. The rest of vLLM is not needed: `vllm_figures.py` puts something in its place.
"""

import sys
import sysconfig
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("vllm-*.whl")
with zipfile.ZipFile(wheel) as packed:
    names = [
        name
        for name in packed.namelist()
        if name in ("vllm/benchmarks/__init__.py", "vllm/benchmarks/serve.py")
        or name.startswith("vllm/benchmarks/lib/")
        or name.endswith(".dist-info/METADATA")
        or ".dist-info/licenses/" in name
    ]
    packed.extractall(sysconfig.get_path("purelib"), names)
