"""Page kinds about shares and assets."""

from __future__ import annotations

from finqa_sft.readers.filings.schema import Kind, Row, drawn, opening, total, walk

_YEAR_ENDED = "Year ended {end},"
_AT_DATE = "At {end},"


COMPENSATION = Kind(
    topics=frozenset({"compensation"}),
    headings=("Stock-based compensation", "Share-based payment", "Equity compensation plans"),
    intros=(
        "Stock-based compensation expense recognized in each year is shown below{note}.",
        "The cost of awards under the equity plans of {company} was as follows{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("options", "Stock options", drawn(0.002, 0.004, swing=0.15),
            phrase="stock option expense", part_of="expense"),
        Row("units", "Restricted stock units", drawn(0.004, 0.008, swing=0.15),
            phrase="restricted stock unit expense", part_of="expense"),
        Row("performance", "Performance shares", drawn(0.0015, 0.003, swing=0.25),
            phrase="performance share expense", part_of="expense", tier=1),
        Row("purchase", "Employee stock purchase plan", drawn(0.0006, 0.001, swing=0.15),
            phrase="employee stock purchase plan expense", part_of="expense", tier=2),
        Row("expense", "Total stock-based compensation",
            total("options units performance purchase"), sums=True),
        Row("benefit", "Income tax benefit", drawn(0.2, 0.33, of="expense", sign=-1), contra=True,
            tier=1),
        Row("after", "Stock-based compensation after tax", total("expense benefit"), sums=True,
            tier=1),
    ),
    facts=(
        Row("unrecognized", "unrecognized compensation cost", drawn(0.008, 0.015), stock=True,
            part_of="expense",
            text="Unrecognized compensation cost of unvested awards was {v0} at the end of {y0} "
            "and {v1} at the end of {y1}."),
        Row("exercise", "cash received from option exercises", drawn(0.004, 0.009, swing=0.3),
            text="Cash received from the exercise of options was {v0} in {y0} and {v1} in {y1}."),
        Row("fair", "the average grant-date fair value of a restricted stock unit",
            walk((18, 70), (-0.1, 0.2)), unit="share",
            text="The weighted average grant-date fair value of a restricted stock unit was {v0} "
            "in {y0}, {v1} in {y1} and {v2} in {y2}."),
    ),
)  # fmt: skip

REPURCHASES = Kind(
    topics=frozenset({"shares"}),
    headings=("Share repurchases", "Repurchase program", "Returns to shareholders"),
    intros=(
        "Purchases under our share repurchase program and dividends were as follows{note}.",
        "The table summarizes what {company} returned to its shareholders{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("price", "Average price paid per share", walk((16, 60), (-0.12, 0.22)), unit="share",
            phrase="the price paid per share"),
        Row("bought", "Shares repurchased", drawn(0.0008, 0.002, swing=0.3), unit="count",
            plural=True, times="price"),
        Row("paid", "Dividends paid", drawn(0.012, 0.022, swing=0.1), plural=True),
        Row("dividend", "Dividends declared per share", walk((0.6, 1.9), (0.02, 0.12)),
            unit="share", plural=True, tier=1),
        Row("left", "Remaining repurchase authorization", drawn(0.03, 0.09, swing=0.3), stock=True,
            phrase="the remaining repurchase authorization", tier=1),
        Row("treasury", "Treasury shares held", drawn(0.008, 0.014, swing=0.05), unit="count",
            plural=True, stock=True, tier=2),
        Row("granted", "Shares issued under equity plans", drawn(0.0004, 0.0008, swing=0.3),
            unit="count", phrase="the number of shares issued under equity plans", tier=3),
    ),
    facts=(
        Row("authorized", "the size of the repurchase program approved by the board",
            drawn(0.04, 0.1, swing=0.2),
            text="In {y0} the board of directors approved a repurchase program of {v0}, which has "
            "no expiration date."),
        Row("special", "the cost of shares withheld for taxes", drawn(0.003, 0.008, swing=0.3),
            text="In addition, we withheld shares at a cost of {v0} in {y0} and {v1} in {y1} to "
            "cover taxes on vested awards."),
        Row("holders", "the number of holders of record", drawn(0.8, 2.0, swing=0.03),
            unit="people", stock=True,
            text="There were {v0} holders of record of our common stock at the end of {y0} and "
            "{v1} at the end of {y1}."),
    ),
)  # fmt: skip

RETURNS = Kind(
    topics=frozenset({"shares"}),
    headings=("Performance graph", "Total shareholder return", "Comparison of cumulative return"),
    intros=(
        "The table shows the value of $100 invested at the end of the first year in our common "
        "stock and in the indices named, with dividends reinvested.",
        "Cumulative total return of {company} and of indices on an investment of $100, with "
        "dividends reinvested, was as follows.",
    ),
    caption=_AT_DATE,
    newest_first=False,
    all_columns=True,
    rows=tuple(
        Row(key, label, walk((100, 100), change), unit="index", stock=True, part_of="indices",
            phrase=f"the value of $100 invested in {what}", tier=tier)
        for key, label, what, change, tier in (
            ("own", "{company}", "{company}", (-0.15, 0.35), 0),
            ("market", "Broad Market 500 Index", "the Broad Market 500 Index", (-0.06, 0.2), 0),
            ("peers", "Industry Peer Group", "the Industry Peer Group", (-0.1, 0.25), 0),
            ("small", "Mid-Cap Composite Index", "the Mid-Cap Composite Index", (-0.1, 0.24), 2),
        )
    ),
    facts=(
        Row("volume", "the average daily trading volume", drawn(50, 150, swing=0.2), unit="people",
            text="The average daily trading volume of our common stock was {v0} shares in {y0} and "
            "{v1} shares in {y1}."),
        Row("declared", "dividends declared per share", walk((0.5, 1.8), (0.02, 0.12)),
            unit="share", plural=True,
            text="We declared dividends of {v0} per share in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("holders", "the number of holders of record", drawn(0.8, 2.0, swing=0.03),
            unit="people", stock=True,
            text="Our common stock had {v0} holders of record at the end of {y0}, compared with "
            "{v1} a year earlier."),
    ),
)  # fmt: skip

INVENTORIES = Kind(
    topics=frozenset({"inventories"}),
    headings=("Inventories", "Components of inventories", "Note on inventories"),
    intros=(
        "Inventories are stated at the lower of cost and net realizable value and consisted of "
        "the following{note}.",
        "The components of our inventories at each fiscal year-end were{note}:",
    ),
    caption=_AT_DATE,
    rows=(
        Row("raw", "Raw materials", drawn(0.03, 0.05, swing=0.12), plural=True, stock=True,
            phrase="inventories of raw materials", part_of="all"),
        Row("process", "Work in process", drawn(0.012, 0.025, swing=0.15), stock=True,
            part_of="all"),
        Row("finished", "Finished goods", drawn(0.05, 0.09, swing=0.12), plural=True, stock=True,
            phrase="inventories of finished goods", part_of="all"),
        Row("spares", "Spare parts and supplies", drawn(0.006, 0.012), plural=True, stock=True,
            part_of="all", tier=1),
        Row("reserve", "Less obsolescence reserve", drawn(0.003, 0.006, swing=0.2, sign=-1),
            contra=True, stock=True, tier=2),
        Row("all", "Total inventories", total("raw process finished spares reserve"), plural=True,
            sums=True, stock=True),
    ),
    facts=(
        Row("writedown", "inventory write-downs", drawn(0.002, 0.006, swing=0.4), plural=True,
            part_of="all",
            text="Write-downs of obsolete inventory were {v0} in {y0} and {v1} in {y1}."),
        Row("lifo", "the excess of replacement cost over carrying amount", drawn(0.01, 0.02),
            stock=True, part_of="all",
            text="Replacement cost exceeded the carrying amount of inventories by {v0} at the end "
            "of {y0} and by {v1} at the end of {y1}."),
        Row("consigned", "inventories held on consignment", drawn(0.004, 0.01), plural=True,
            stock=True, part_of="all",
            text="Inventories at the end of {y0} include {v0} held on consignment at customers."),
    ),
)  # fmt: skip

PROPERTY = Kind(
    topics=frozenset({"property", "depreciation"}),
    headings=("Property, plant and equipment", "Fixed assets", "Note on property and equipment"),
    intros=(
        "Property, plant and equipment is recorded at cost and consisted of the following{note}.",
        "The major classes of property, plant and equipment were{note}:",
    ),
    caption=_AT_DATE,
    rows=(
        Row("land", "Land", drawn(0.008, 0.015, swing=0.02), stock=True, phrase="land at cost",
            part_of="gross"),
        Row("buildings", "Buildings", drawn(0.08, 0.14, swing=0.04), plural=True, stock=True,
            phrase="buildings at cost", part_of="gross"),
        Row("machinery", "Machinery and equipment", drawn(0.25, 0.4, swing=0.04), stock=True,
            phrase="machinery and equipment at cost", part_of="gross"),
        Row("software", "Capitalized software", drawn(0.02, 0.04), stock=True, part_of="gross",
            tier=1),
        Row("progress", "Construction in progress", drawn(0.01, 0.03, swing=0.3), stock=True,
            part_of="gross", tier=2),
        Row("gross", "Gross property and equipment",
            total("land buildings machinery software progress"), sums=True, stock=True),
        Row("accumulated", "Less accumulated depreciation",
            drawn(0.45, 0.6, of="gross", swing=0.03, sign=-1), contra=True, stock=True, tier=1),
        Row("net", "Net property and equipment", total("gross accumulated"), sums=True, stock=True,
            tier=1),
    ),
    facts=(
        Row("depreciation", "depreciation expense", drawn(0.025, 0.04), part_of="gross",
            text="Depreciation expense was {v0} in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("capitalized", "capitalized interest", drawn(0.002, 0.004, swing=0.3),
            text="We capitalized interest of {v0} in {y0} and {v1} in {y1} on projects under "
            "construction."),
        Row("idle", "property held for sale", drawn(0.003, 0.01, swing=0.3), stock=True,
            part_of="gross",
            text="Property held for sale had a carrying amount of {v0} at the end of {y0}."),
    ),
)  # fmt: skip

GOODWILL = Kind(
    topics=frozenset({"goodwill", "amortization"}),
    headings=("Goodwill and intangible assets", "Changes in goodwill", "Note on goodwill"),
    intros=(
        "The carrying amount of goodwill changed as follows{note}.",
        "A rollforward of the goodwill of {company} is presented below{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("begin", "Goodwill at beginning of year", opening("end", 0.2, 0.45), stock=True,
            phrase="opening goodwill", at="for {y}"),
        Row("added", "Goodwill acquired", drawn(0.012, 0.05, swing=0.5)),
        Row("fx", "Currency translation", drawn(0.003, 0.009, swing=0.5, sign=0), tier=1,
            phrase="the effect of currency translation on goodwill"),
        Row("impaired", "Impairment", drawn(0.004, 0.012, swing=0.4, sign=-1), contra=True, tier=2),
        Row("sold", "Divestitures", drawn(0.003, 0.008, swing=0.4, sign=-1), contra=True, tier=3),
        Row("end", "Goodwill at end of year", total("begin added fx impaired sold"), sums=True,
            stock=True, phrase="goodwill"),
    ),
    facts=(
        Row("amortization", "amortization of intangible assets", drawn(0.008, 0.02), part_of="end",
            text="Amortization of intangible assets was {v0} in {y0}, {v1} in {y1} and {v2} in "
            "{y2}."),
        Row("trademarks", "trademarks with indefinite lives", drawn(0.03, 0.06, swing=0.03),
            plural=True, stock=True, part_of="end",
            text="Trademarks with indefinite lives were carried at {v0} at the end of {y0} and "
            "{v1} at the end of {y1}."),
        Row("deal", "the goodwill of the largest acquisition", drawn(0.3, 0.8, of="added"),
            part_of="added",
            text="The largest acquisition of fiscal {y0} accounted for {v0} of the goodwill "
            "acquired in that year."),
    ),
)  # fmt: skip

HOLDINGS = (COMPENSATION, REPURCHASES, RETURNS, INVENTORIES, PROPERTY, GOODWILL)
