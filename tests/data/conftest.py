"""Makes the package ``data`` importable, as ``python data/generate.py`` does for itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
