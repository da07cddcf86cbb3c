"""The page generator: words, fonts, a canvas that remembers what it drew, and kinds of pages with known facts."""
