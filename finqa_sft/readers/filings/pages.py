"""Makes pages: headings, tables, and the text around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from finqa_sft.documents import Block, Document, Paragraph, Table
from finqa_sft.readers.filings.draws import Draws
from finqa_sft.readers.filings.figures import Section, SectionFigures, Series
from finqa_sft.readers.filings.holdings import HOLDINGS
from finqa_sft.readers.filings.options import FilingsOptions
from finqa_sft.readers.filings.schedules import GENERAL_FACTS, SCHEDULES
from finqa_sft.readers.filings.schema import Kind, Row
from finqa_sft.readers.filings.setting import Setting, setting_of
from finqa_sft.readers.filings.statements import STATEMENTS
from finqa_sft.readers.filings.vocabulary import FILLER

KINDS = (*STATEMENTS, *HOLDINGS, *SCHEDULES)


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and what can be asked about it."""

    document: Document
    sections: tuple[Section, ...]


def make_page(number: int, options: FilingsOptions) -> Page:
    """Make the page with this number, counted from 0; it depends on no other page."""
    draws = Draws(options.seed, "page", number)
    setting = setting_of(number, options, kinds=KINDS, draws=draws)
    layout = _Layout(iter(draws.shuffled(FILLER)), setting.words)
    layout.add(f"{setting.firm.name} annual report for fiscal {setting.years[-1]}")
    general = iter(draws.shuffled(GENERAL_FACTS))
    sections = tuple(
        _section(kind, setting, layout=layout, general=general, draws=draws)
        for kind in setting.kinds
    )
    layout.pad(setting.shape.tokens, draws=draws)
    ticker = setting.firm.ticker
    return Page(
        Document(
            id=f"{ticker}/{setting.years[-1]}/page_{number + 1}",
            blocks=layout.blocks(),
            company=ticker,
        ),
        sections,
    )


def estimate_tokens(block: Block) -> int:
    """Tokens of a block when every digit is one token, and four other characters are one."""
    text = block.text if isinstance(block, Paragraph) else " ".join(map(" ".join, block.rows))
    digits = sum(character.isdigit() for character in text)
    return digits + (len(text) - digits + 3) // 4


def _section(
    kind: Kind, setting: Setting, *, layout: _Layout, general: Iterator[Row], draws: Draws
) -> Section:
    """Append a heading, a table and the text around it; gives all that can be asked about them."""
    shape = setting.shape
    own = draws.shuffled(kind.facts)[: shape.own_facts]
    others = list(islice(general, shape.general_facts))
    figures = SectionFigures(kind, own + others, setting=setting, draws=draws)
    in_corner = draws.pick((True, False))
    captioned = draws.pick((True, False, False))
    note = f" ({figures.note})" if figures.note and not in_corner else ""
    series: dict[str, Series] = {}

    def tell(fact: Row) -> None:
        block = layout.add(figures.sentence(fact), loose=True)
        series[fact.key] = figures.fact_series(fact, block)

    for fact in others:
        tell(fact)
    for _ in range(shape.fillers):
        layout.add_filler()
    layout.add(draws.pick(kind.headings))
    layout.add(draws.pick(kind.intros).format(note=note, **setting.words))
    operators = not any(isinstance(part, Table) for part in layout.parts)
    corner = f"({figures.note})" if figures.note and in_corner else ""
    table = figures.table(corner, captioned=captioned)
    block = layout.add(table)
    series |= figures.table_series(block, header_rows=table.header_rows, operators=operators)
    for fact in own:
        tell(fact)
    if shape.fillers:
        layout.add_filler()
    return series


@dataclass(slots=True)
class _Layout:
    """The blocks of a page while it is made.

    Attributes:
        fillers: Sentences that say nothing.
        words: What they may name.
        parts: Tables, and paragraphs as lists of sentences.
        loose: The paragraphs that may grow.
    """

    fillers: Iterator[str]
    words: Mapping[str, object]
    parts: list[list[str] | Table] = field(default_factory=list)
    loose: list[list[str]] = field(default_factory=list)

    def add(self, part: str | Table, *, loose: bool = False) -> int:
        """Append a table, or a paragraph by its first sentence; gives the block's index."""
        if isinstance(part, Table):
            self.parts.append(part)
        else:
            sentences = [part]
            self.parts.append(sentences)
            if loose:
                self.loose.append(sentences)
        return len(self.parts) - 1

    def add_filler(self) -> None:
        """Append a paragraph that says nothing."""
        self.add(next(self.fillers).format(**self.words), loose=True)

    def pad(self, tokens: int, *, draws: Draws) -> None:
        """Let paragraphs grow until the page is about so many tokens long."""
        missing = tokens - sum(map(estimate_tokens, self.blocks()))
        for filler in self.fillers:
            sentence = filler.format(**self.words)
            cost = estimate_tokens(Paragraph(sentence))
            if missing < cost / 2:
                break
            missing -= cost
            draws.pick(self.loose).append(sentence)

    def blocks(self) -> tuple[Block, ...]:
        """The blocks so far."""
        return tuple(
            part if isinstance(part, Table) else Paragraph(" ".join(part)) for part in self.parts
        )
