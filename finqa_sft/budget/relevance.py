"""How much the parts of a document have to do with the questions that are asked about it."""

from __future__ import annotations

from collections.abc import Sequence

# Words and numbers; a character at a time in the scripts that put no spaces between words.
_WORD = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+"


def relevance(texts: Sequence[str], questions: Sequence[str]) -> list[list[float]]:
    """How relevant each text is to each question: its BM25 score, within these texts alone.

    Args:
        texts: What is ranked.
        questions: What is asked.

    Returns:
        For each question, a score for each text: 0 where they share no word, English stop words
        aside.
    """
    # Imports numpy: only where a document is cut.
    import bm25s

    words = bm25s.tokenize(list(texts), token_pattern=_WORD, stopwords="en", show_progress=False)
    if not words.vocab:
        return [[0.0] * len(texts) for _ in questions]
    index = bm25s.BM25(backend="numpy", csc_backend="numpy")
    # Not `index()`, which logs each call, at a level that the library turns on itself.
    index.scores = index.build_index_from_ids(
        list(words.vocab.values()), words.ids, show_progress=False
    )
    asked = bm25s.tokenize(
        list(questions),
        token_pattern=_WORD,
        stopwords="en",
        return_ids=False,
        show_progress=False,
    )
    found = [[words.vocab[word] for word in query if word in words.vocab] for query in asked]
    return [index.get_scores_from_ids(ids).tolist() for ids in found]
