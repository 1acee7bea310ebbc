"""A place where nothing may be written."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written to, with ``fill(folder)`` called before it is closed."""

    def make(fill=lambda folder: None):
        folder = tmp_path / "closed"
        folder.mkdir()
        if os.geteuid() != 0:
            fill(folder)
            folder.chmod(0o555)
            undo.append(lambda: folder.chmod(0o755))
            return folder
        fill(tmp_path)
        for entry in tmp_path.iterdir():
            if entry.is_file():
                entry.rename(folder / entry.name)
        mounted = subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True)
        if mounted.returncode:
            pytest.skip(f"permissions do not bind root, and no read-only mount can be made: {mounted.stderr.decode()}")
        undo.append(lambda: subprocess.run(["umount", folder], check=False))
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        return folder

    undo = []
    yield make
    for step_back in undo:
        step_back()
