from sharing import costed_anew, costed_once

__all__ = ["costed_anew", "costed_once"]
