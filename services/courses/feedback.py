"""What a student must not read in the feedback: the references of the hidden tests.

nbgrader's feedback page shows each cell as it was graded, hidden tests and their
references included. A reference that one student has seen is good for nobody any more.
"""

from __future__ import annotations

from typing import Any

from nbgrader.preprocessors import ClearHiddenTests
from nbgrader.utils import is_grade


class HideReferences(ClearHiddenTests):  # type: ignore[misc]  # nbgrader is untyped
    """Cuts the hidden tests out of the page, and source lines out of its errors."""

    # Any: notebook nodes and nbconvert's resources, both loosely typed.
    def preprocess_cell(self, cell: Any, resources: Any, _index: int) -> Any:
        """Cut one cell; its points and what it printed stay."""
        self._remove_hidden_test_region(cell)
        if cell.cell_type == "code" and is_grade(cell):
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources
