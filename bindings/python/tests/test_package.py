"""The package itself."""

import acms


def test_version() -> None:
    assert acms.__version__ == "0.1.0"
