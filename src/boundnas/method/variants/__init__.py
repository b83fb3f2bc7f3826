"""Parts of other papers' methods, to compare with."""
