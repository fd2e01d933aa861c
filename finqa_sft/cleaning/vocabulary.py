"""Words by which the rules tell years, dates, units and identifiers from other text."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MONTHS = _words(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)

UNITS = _words(
    "thousand thousands million millions billion billions dollar dollars euro euros pound pounds "
    "rmb usd eur gbp m mm bn k us percent percentage percentages unaudited audited restated "
    "% $ € £ ¥ 000"
)

PERIODS = _words(
    "year years month months quarter quarters week weeks ended ending fiscal period periods as at "
    "fy first second third fourth three six nine twelve"
)

HEADER_FILLERS = _words("in of the and for to on amount amounts except per share ' ’ . , ( ) -")
"""Words and marks that join the others in a header."""

NO_OWNERS = _words(
    "a about after all an and any as at before between both by compared during each early either "
    "exceeded expected fiscal for from her his in into its late less like mid near neither no nor "
    "of on or our over per prior since some than that the their these this those through to total "
    "toward under until versus vs was were whether while with within year years"
)
"""Words that a year can follow, and that own nothing."""

NUMBERED = _words(
    "section sections rule rules item items part parts form forms no number numbers nos paragraph "
    "clause article exhibit schedule page room suite unit building lot gate code model series "
    "class type id ref reference account product and or"
)
"""Words that an identifier such as "201c" can follow."""

CONJUNCTIONS = _words("and or")
"""Those of them that a quotation can follow as well."""

AFTER_YEARS = _words(
    "a an and are as at by compared from had has have in include included includes is may of on or "
    "respectively than that the through to totaled under versus vs was were which will with would"
)
"""Words before which a number after a plural is a year: "fiscal years 2019 and 2018"."""

OWNERS = {
    "equity": _words("stockholders shareholders shareowners members partners owners"),
    "deficit": _words("stockholders shareholders shareowners members partners"),
    "investment": _words("stockholders shareholders shareowners owners"),
    "capital": _words("partners members"),
    "compensation": _words("workers workmens"),
    "accounting": _words("employers"),
    "disclosures": _words("employers"),
    "service": _words("investors"),
}
"""Plurals, by the word after them, with which they make a fixed phrase: "stockholders' equity"."""
