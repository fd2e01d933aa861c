"""Page kinds about a year's business: income, sales, taxes and cash."""

from __future__ import annotations

from finqa_sft.readers.filings.schema import (
    Kind,
    Row,
    around,
    constant_until,
    drawn,
    opening,
    quotient,
    total,
    walk,
)

_YEAR_ENDED = "Year ended {end},"


INCOME = Kind(
    topics=frozenset({"sales", "tax", "amortization"}),
    headings=("Results of operations", "Consolidated statements of income", "Selected results"),
    intros=(
        "The table below presents selected lines of our consolidated statements of income{note}.",
        "Selected results of {company} for the fiscal years shown are as follows{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("sales", "Net sales", drawn(1, 1, swing=0), plural=True),
        Row("cogs", "Cost of sales|Cost of goods sold", drawn(0.5, 0.62, of="sales", swing=0.04),
            part_of="sales"),
        Row("gross", "Gross profit", total("sales -cogs"), part_of="sales", sums=True),
        Row("sga", "Selling and administrative expenses", drawn(0.1, 0.16), plural=True,
            part_of="sales", tier=1),
        Row("rd", "Research and development", drawn(0.02, 0.05),
            phrase="research and development expense", part_of="sales", tier=1),
        Row("amortization", "Amortization of intangibles", drawn(0.005, 0.015), part_of="sales",
            tier=3),
        Row("restructuring", "Restructuring charges", drawn(0.003, 0.012, swing=0.4), plural=True,
            part_of="sales", tier=2),
        Row("operating", "Operating income|Income from operations",
            total("gross -sga -rd -amortization -restructuring"), part_of="sales", sums=True,
            tier=1),
        Row("interest", "Interest expense", drawn(0.006, 0.018), tier=2),
        Row("other", "Other income (expense), net", drawn(0.001, 0.004, swing=0.3, sign=0), tier=3),
        Row("pretax", "Income before income taxes", total("operating -interest other"), sums=True,
            tier=2),
        Row("tax", "Provision for income taxes|Income tax expense",
            drawn(0.2, 0.3, of="pretax", swing=0.05), part_of="pretax", tier=2),
        Row("net", "Net income", total("pretax -tax"), part_of="sales", sums=True, tier=2),
        Row("shares", "Average diluted shares", walk((0.017, 0.06), (-0.03, 0.01), sized=True),
            unit="count", plural=True, stock=True, at="in {y}", tier=3),
        Row("eps", "Diluted earnings per share", quotient("net", "shares"), unit="share",
            plural=True, tier=3),
    ),
    facts=(
        Row("advertising", "advertising costs", drawn(0.012, 0.03), plural=True, part_of="sales",
            text="Advertising costs, which are expensed as incurred, were {v0} in {y0} and {v1} "
            "in {y1}."),
        Row("acquired", "the net sales contributed by acquired businesses",
            drawn(0.01, 0.05, swing=0.3), plural=True, part_of="sales",
            text="Businesses acquired during the year contributed {v0} to net sales in {y0}."),
        Row("currency", "the reduction of net sales by exchange rates",
            drawn(0.008, 0.02, swing=0.4), part_of="sales",
            text="Changes in foreign exchange rates reduced net sales by {v0} in {y0}, after a "
            "reduction of {v1} in {y1}."),
        Row("freight", "outbound freight costs", drawn(0.02, 0.04), plural=True, part_of="sales",
            text="Outbound freight costs amounted to {v0} in {y0}, compared with {v1} in {y1}."),
    ),
)  # fmt: skip

_SEGMENTS = tuple(
    Row(f"s{number}", f"{{s{number}}}", drawn(low, high, swing=0.1),
        phrase=f"net sales of the {{s{number}}} segment", plural=True, part_of="all", tier=tier)
    for number, low, high, tier in (
        (1, 0.3, 0.4, 0), (2, 0.2, 0.26, 0), (3, 0.12, 0.18, 0), (4, 0.08, 0.12, 1),
        (5, 0.04, 0.07, 2),
    )
)  # fmt: skip
_SEGMENT_INCOME = tuple(
    Row(f"o{number}", f"{{s{number}}} operating income",
        drawn(0.08, 0.22, of=f"s{number}", swing=0.15),
        phrase=f"operating income of the {{s{number}}} segment", part_of="profit", tier=2)
    for number in range(1, 6)
)  # fmt: skip

SEGMENTS = Kind(
    topics=frozenset({"sales"}),
    headings=("Segment information", "Net sales by segment", "Reportable segments"),
    intros=(
        "Net sales of our reportable segments were as follows{note}.",
        "{company} manages its business in the segments shown below{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        *_SEGMENTS,
        Row("elimination", "Intersegment eliminations", drawn(0.01, 0.03, sign=-1), contra=True,
            tier=2),
        Row("all", "Total net sales", total("s1 s2 s3 s4 s5 elimination"), plural=True, sums=True),
        *_SEGMENT_INCOME,
        Row("profit", "Total segment operating income", total("o1 o2 o3 o4 o5"), sums=True, tier=2),
    ),
    facts=(
        Row("top", "sales to the largest customer of the {s1} segment",
            drawn(0.12, 0.25, of="s1", swing=0.15), plural=True, part_of="s1",
            text="Sales to the largest customer of the {s1} segment were {v0} in {y0} and {v1} in "
            "{y1}."),
        Row("spending", "capital expenditures of the {s2} segment", drawn(0.01, 0.03, swing=0.2),
            plural=True, part_of="s2",
            text="Capital expenditures of the {s2} segment came to {v0} in {y0}, {v1} in {y1} and "
            "{v2} in {y2}."),
        Row("bought", "net sales acquired by the {s1} segment", drawn(0.02, 0.05, swing=0.2),
            plural=True, part_of="s1",
            text="In fiscal {y0} the {s1} segment completed an acquisition that added {v0} to its "
            "net sales."),
    ),
)  # fmt: skip

GEOGRAPHY = Kind(
    topics=frozenset({"sales"}),
    headings=("Geographic information", "Net sales by region", "Sales by destination"),
    intros=(
        "Net sales are attributed to regions by the location of the customer{note}.",
        "The following table shows net sales of {company} by region{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        *(
            Row(key, label, drawn(low, high, swing=0.1), plural=True, part_of="all", tier=tier,
                phrase=phrase)
            for key, label, phrase, low, high, tier in (
                ("us", "United States", "net sales in the United States", 0.42, 0.5, 0),
                ("europe", "Europe", "net sales in Europe", 0.2, 0.26, 0),
                ("asia", "Asia Pacific", "net sales in Asia Pacific", 0.12, 0.18, 0),
                ("latin", "Latin America", "net sales in Latin America", 0.06, 0.09, 1),
                ("canada", "Canada", "net sales in Canada", 0.03, 0.05, 2),
                ("africa", "Middle East and Africa", "net sales in the Middle East and Africa",
                 0.015, 0.03, 3),
            )
        ),
        Row("all", "Total net sales", total("us europe asia latin canada africa"), plural=True,
            sums=True),
    ),
    facts=(
        Row("china", "net sales in China", drawn(0.25, 0.4, of="asia", swing=0.1), plural=True,
            part_of="asia",
            text="Net sales in China, which are included in Asia Pacific, were {v0} in {y0} and "
            "{v1} in {y1}."),
        Row("export", "exports from the United States", drawn(0.03, 0.06, swing=0.15), plural=True,
            part_of="all",
            text="Exports from the United States were {v0} in {y0}, compared with {v1} in {y1}."),
        Row("germany", "net sales in Germany", drawn(0.2, 0.35, of="europe", swing=0.1),
            plural=True, part_of="europe",
            text="Germany accounted for {v0} of our European net sales in {y0}."),
    ),
)  # fmt: skip

TAXES = Kind(
    topics=frozenset({"tax"}),
    headings=("Income taxes", "Effective tax rate", "Reconciliation of the tax rate"),
    intros=(
        "The federal statutory rate is reconciled to our effective tax rate as follows.",
        "The effective tax rate of {company} differed from the statutory rate for these reasons.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("statutory", "Federal statutory rate", constant_until(2018, "35.0", "21.0"),
            phrase="the federal statutory rate", unit="percent"),
        *(
            Row(key, label, around(low, high), phrase=phrase, unit="percent",
                part_of="rate", tier=tier)
            for key, label, phrase, low, high, tier in (
                ("state", "State taxes", "the effect of state taxes", 1.5, 3.2, 0),
                ("foreign", "Foreign rate differential", "the effect of foreign rates",
                 -4.5, -1.5, 0),
                ("credits", "Research credits", "the effect of research credits", -2.0, -0.8, 1),
                ("allowance", "Valuation allowances", "the effect of valuation allowances",
                 0.6, 1.5, 2),
                ("audits", "Settlement of audits", "the effect of audit settlements",
                 -1.2, -0.5, 3),
            )
        ),
        Row("rate", "Effective tax rate",
            total("statutory state foreign credits allowance audits"),
            phrase="the effective tax rate", unit="percent", sums=True),
    ),
    facts=(
        Row("unrecognized", "unrecognized tax benefits", drawn(0.008, 0.02, swing=0.2), plural=True,
            stock=True,
            text="Unrecognized tax benefits were {v0} at the end of {y0} and {v1} at the end of "
            "{y1}."),
        Row("paid", "cash paid for income taxes", drawn(0.02, 0.04, swing=0.2),
            text="Cash paid for income taxes was {v0} in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("losses", "tax loss carryforwards", drawn(0.02, 0.06), plural=True, stock=True,
            text="At the end of {y0}, we had tax loss carryforwards of {v0}."),
    ),
)  # fmt: skip

CASH_FLOW = Kind(
    topics=frozenset({"cash", "interest", "depreciation", "amortization"}),
    headings=("Liquidity and capital resources", "Cash flows", "Sources and uses of cash"),
    intros=(
        "Our cash flows for the fiscal years shown are summarized below{note}.",
        "Cash provided by (used in) the activities of {company} was as follows{note}.",
    ),
    caption=_YEAR_ENDED,
    rows=(
        Row("operating", "Operating activities", drawn(0.1, 0.18, swing=0.12),
            phrase="net cash flow from operating activities"),
        Row("investing", "Investing activities", drawn(0.04, 0.09, swing=0.25, sign=-1),
            phrase="net cash flow from investing activities"),
        Row("financing", "Financing activities",
            drawn(0.5, 1.05, of="operating investing", swing=0.2, sign=-1),
            phrase="net cash flow from financing activities"),
        Row("fx", "Effect of exchange rates", drawn(0.0008, 0.002, sign=0), contra=True, tier=1),
        Row("net", "Net change in cash", total("operating investing financing fx"), sums=True,
            phrase="the overall movement in cash"),
        Row("begin", "Cash at beginning of year", opening("end", 0.1, 0.2), stock=True,
            phrase="the opening cash balance", at="for {y}", tier=2),
        Row("end", "Cash at end of year", total("begin net"), sums=True, stock=True, phrase="cash",
            tier=2),
        Row("capex", "Capital expenditures", drawn(0.03, 0.055, swing=0.15, sign=-1), contra=True,
            tier=3),
        Row("free", "Free cash flow", total("operating capex"), sums=True, tier=3),
    ),
    facts=(
        Row("depreciation", "depreciation and amortization", drawn(0.03, 0.05),
            part_of="operating",
            text="Operating cash flow includes depreciation and amortization of {v0} in {y0} and "
            "{v1} in {y1}."),
        Row("interest", "cash paid for interest", drawn(0.006, 0.016), part_of="operating",
            text="Cash paid for interest was {v0} in {y0}, {v1} in {y1} and {v2} in {y2}."),
        Row("abroad", "cash held by foreign subsidiaries", drawn(0.03, 0.08), stock=True,
            part_of="end",
            text="Cash held by foreign subsidiaries was {v0} at the end of {y0}, compared with "
            "{v1} a year earlier."),
    ),
)  # fmt: skip

STATEMENTS = (INCOME, SEGMENTS, GEOGRAPHY, TAXES, CASH_FLOW)
