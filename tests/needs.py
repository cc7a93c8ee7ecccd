"""Names the Debian packages that the tests need and this machine lacks; exits 1 if there are any."""

import shutil
import sys

PACKAGES = {
    "java": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "node": "nodejs",
    "npm": "npm",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "redis-server": "redis-server",  # with TLS, which the one from PyPI has not
    "chromium": "chromium",
}
PATHS = "/usr/local/sbin:/usr/sbin:/sbin"


def missing() -> list[str]:
    """Return the packages, each once."""
    return list(
        dict.fromkeys(
            package
            for program, package in PACKAGES.items()
            if not shutil.which(program) and not shutil.which(program, path=PATHS)
        )
    )


if __name__ == "__main__":
    packages = missing()
    if "--list" in sys.argv:
        print(" ".join(packages))
    elif packages:
        sys.exit(f"the tests need {', '.join(packages)}. Next: sudo apt-get install {' '.join(packages)}")
