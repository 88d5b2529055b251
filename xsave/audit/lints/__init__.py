"""Lints: what is dangerous or inconsistent in areas, CPUID sets, configurations and images, each with its real bug.

`LINTS` is the one table; the modules here find, one subject a file, and print nothing.
"""

from xsave.audit.lints.areas import lint_area
from xsave.audit.lints.catalogue import LINTS, Finding, Lint
from xsave.audit.lints.configs import lint_config
from xsave.audit.lints.cpuid import lint_model
from xsave.audit.lints.images import lint_image

__all__ = ["LINTS", "Finding", "Lint", "lint_area", "lint_config", "lint_image", "lint_model"]
