from axoc_runtime.ingest.base import Source
from axoc_runtime.testing import ReaderConformance
from docstrings_dataset import Docstrings

CODE = '''
def add(x, y):
    """Gives the sum of two numbers, which may be of any kind that knows how to be added."""


def short():
    """Says too little."""
'''


class TestDocstrings(ReaderConformance):
    reader = Docstrings

    def source(self, folder):
        (folder / "sums.py").write_text(CODE)
        return Source(written=f"pydoc:{folder}", path=folder)
